"""Read unambiguous ZIPs, without importing other packages of the project."""

from tasks.bundle.zip.check import NO_PADDING, Padding
from tasks.bundle.zip.errors import BadZip, WindowNeeded
from tasks.bundle.zip.reader import Limits, Member, Unpacked, Unreadable, read_zip

__all__ = ["NO_PADDING", "BadZip", "Limits", "Member", "Padding", "Unpacked", "Unreadable", "WindowNeeded", "read_zip"]
