"""What the service measures of itself: plain numbers where things happen, and their forms for whoever asks.

Nothing here sees a secret or a document: labels are templates of routes, statuses, codes and kinds.
"""
