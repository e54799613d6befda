"""Replies in the many forms that servers give them: each is read right, or costs the one sample that it spoils."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint, Running, written, written_stream

from thinktime.answers import TextAnswers
from thinktime.core.errors import InputError, ModelError, ThinktimeError
from thinktime.core.search import Search
from thinktime.core.types import Node, Problem, Sampling
from thinktime.core.usage import Budget
from thinktime.generators.openai import RemoteGenerator
from thinktime.models.remote import client as client_module
from thinktime.models.remote.client import LongNumber, RefusedError, UnreadableError, parse_object
from thinktime.models.remote.events import EventReader
from thinktime.models.remote.protocol import Choice, read_choices
from thinktime.models.remote.reported_errors import reported_error, status_of
from thinktime.models.remote.streams import Assembly
