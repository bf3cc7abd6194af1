"""The networks and what containers get from them: `Networks` is the room's face to the engine.

A container that is attached has a network namespace (`Sandbox`), in it one interface per network (`Endpoint`), and
published ports. Each step of an attachment undoes itself when a later one fails.

Kernel work (netlink, nftables) is a few milliseconds and is done on the event loop's thread, so that it needs no
lock; only the host and the making of namespaces are waited for, and per container one call goes on at a time.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from weakref import WeakValueDictionary

from pyboxd import locations
from pyboxd.database import Database
from pyboxd.errors import Conflict, Forbidden, InvalidArgument, NotFound, NotImplementedHere, SystemFailure
from pyboxd.linux import netlink
from pyboxd.model import PortRequest
from pyboxd.network import allocation, bridge
from pyboxd.network.bridge import Fabric
from pyboxd.network.discovery import Discovery
from pyboxd.network.model import (
    PREDEFINED,
    Attachment,
    Endpoint,
    Network,
    NetworkRequest,
    PortPublisher,
    Sandbox,
)
from pyboxd.network.namespaces import Namespace, Namespaces
from pyboxd.network.ports import Ports, port_rules
from pyboxd.network.store import NetworkStore, StateStore

STATE_DATABASE = locations.RUN + "/network.db"
DEFAULT_NETWORK = "bridge"
