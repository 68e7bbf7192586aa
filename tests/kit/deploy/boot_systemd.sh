#!/bin/sh
# boot_systemd.sh FOLDER GROUP PREFIX PACKAGES SOURCE: start systemd as process 1, on this machine's files, of which it can
# change none. It is called as process 1 of new namespaces (mount, pid, ipc, uts), and by itself in a new one for cgroups.
# `boot_systemd.sh FOLDER GROUP` removes the control group afterwards; it is called in a new mount namespace.
#
# FOLDER is an empty one; GROUP the name of a control group to create; PREFIX is Python's installation, which is shown as
# /opt/python, PACKAGES its installed packages, shown as /opt/packages, and SOURCE this checkout, shown as /opt/source
# (it may be where systemd mounts something else, such as below /tmp). systemd reports to $NOTIFY_SOCKET when it is up.
set -eu
folder=$1 group=$2
root=$folder/root

if [ $# = 2 ]; then
    mount --make-rprivate /
    mount -t cgroup2 cgroup2 "$folder/cgroup"
    find "$folder/cgroup/$group" -depth -type d -exec rmdir {} +
    exit
fi

prefix=$3 packages=$4 source=$5
if [ $# = 5 ]; then
    mount --make-rprivate /
    mkdir "$folder/cgroup" "$folder/over" "$root"
    mount -t cgroup2 cgroup2 "$folder/cgroup"
    mkdir "$folder/cgroup/$group"
    echo 0 > "$folder/cgroup/$group/cgroup.procs"
    umount "$folder/cgroup"
    exec unshare --cgroup "$0" "$@" again
fi

mount -t tmpfs tmpfs "$folder/over"
mkdir "$folder/over/upper" "$folder/over/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/over/upper,workdir=$folder/over/work" "$root"

# /proc/sys and /sys are this machine's, so they are read-only. systemd then skips what would set up hardware.
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
ln -s pts/ptmx "$root/dev/ptmx"
mkdir "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"

rm -rf "$root/opt"
mkdir -p "$root/opt/python" "$root/opt/packages" "$root/opt/source"
mount --bind -o ro "$prefix" "$root/opt/python"
mount --bind -o ro "$packages" "$root/opt/packages"
mount --bind -o ro "$source" "$root/opt/source"

# Only these units exist: nothing else that this machine has installed is started.
units=usr/lib/systemd/system
mkdir "$folder/over/units"
for unit in basic.target sysinit.target multi-user.target shutdown.target umount.target local-fs.target sockets.target \
    network.target network-online.target final.target exit.target systemd-exit.service \
    systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket; do
    cp "/$units/$unit" "$folder/over/units/"
done
mkdir "$folder/over/units/sysinit.target.wants"
ln -s ../systemd-journald.service "$folder/over/units/sysinit.target.wants/"
mount --bind "$folder/over/units" "$root/$units"
for other in etc/systemd/system usr/lib/systemd/system-generators usr/lib/systemd/system-environment-generators; do
    if [ -d "$root/$other" ]; then mount -t tmpfs -o mode=755 tmpfs "$root/$other"; fi
done

cd "$root"
mkdir "$root/run/before"
pivot_root . run/before
umount --lazy /run/before
rmdir /run/before
# This machine's clock, kernel and network are not for it to change.
exec env -i "NOTIFY_SOCKET=$NOTIFY_SOCKET" container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set -sys_time,-sys_module,-sys_boot,-sys_rawio,-net_admin,-syslog \
    /lib/systemd/systemd --system --unit=multi-user.target --show-status=0
