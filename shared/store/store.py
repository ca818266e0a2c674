"""All of Firestore that the jobs use, over one client."""

from __future__ import annotations

from google.cloud import firestore

from shared.store.accounts import Accounts
from shared.store.clock import Clock
from shared.store.dead_letters import DeadLetters
from shared.store.deliveries import Deliveries
from shared.store.firestore import Firestore
from shared.store.media_assets import MediaAssets
from shared.store.posts import Posts


class Store:
    def __init__(self, *, project: str, database: str, clock: Clock) -> None:
        """Connects lazily; `FIRESTORE_EMULATOR_HOST` is the client library's own setting."""
        db = Firestore(firestore.Client(project=project, database=database), clock)
        self.clock = clock
        self.accounts = Accounts(db)
        self.dead_letters = DeadLetters(db)
        self.deliveries = Deliveries(db)
        self.media_assets = MediaAssets(db)
        self.posts = Posts(db)
