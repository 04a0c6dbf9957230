"""Stores whose only truth is a journal: numbered records, each appended whole, from which everything else is derived.

For places that have neither transactions nor queries worth the name: a directory of files, a database of documents.

    store.py     JournalStore, a ConfigStore on any Journal, with upkeep.py and access.py; session.py: its threads
    protocol.py  what a Journal has to do
    record.py    what one commit made, and its spelling in plain fields (fields.py); pure
    state.py     what the records say so far; pure
    deciding.py  which record a change makes of a state; pure
    drafts.py, cells.py          what changes without a record; pure
    sealed.py, restoring.py      every sealed value; the records of another store
    files.py, directory.py       a Journal in a directory
    mongo.py                     a Journal in a database that speaks MongoDB's protocol
"""
