"""``headrace doctor``: finds what is wrong between Cursor and the models, and says what to do."""
