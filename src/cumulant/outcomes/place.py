"""Names of folders in the folder of outcomes, for those who need nothing else of this room."""

LABELS, WRITING, INBOX, CLAIMED = "labels", "writing", "inbox", "claimed"
