"""Reasons of refused requests and of cut connections: a word each, in the log and the metrics."""

from enum import StrEnum


class RefusalReason(StrEnum):
    """Why a request was refused, or given up by its sender."""

    NO_KEY = "no_key"
    SEVERAL_KEYS = "several_keys"
    WRONG_KEY = "wrong_key"
    UNKNOWN_PATH = "unknown_path"
    WRONG_METHOD = "wrong_method"
    BODY_TOO_LARGE = "body_too_large"
    BODY_TOO_SLOW = "body_too_slow"
    INVALID_BODY = "invalid_body"
    SENDER_HUNG_UP = "sender_hung_up"
    OVERLOADED = "overloaded"
    NOT_SAFE = "not_safe"
    CRASH = "crash"
    BAD_REQUEST = "bad_request"
    HEADERS_TOO_SLOW = "headers_too_slow"
    HEADERS_TOO_LARGE = "headers_too_large"
    TOO_MANY_HEADERS = "too_many_headers"
    URL_TOO_LONG = "url_too_long"
    TOO_MANY_PIPELINED = "too_many_pipelined"

    UNKNOWN = "unknown"
    """None was given, or another word."""

    @classmethod
    def _missing_(cls, _value: object) -> "RefusalReason":
        return cls.UNKNOWN


class CutReason(StrEnum):
    """Why a connection was closed without an answer."""

    TOO_MANY_CONNECTIONS = "too_many_connections"
    TOO_MANY_OPEN_FILES = "too_many_open_files"
    NOTHING_SENT = "nothing_sent"
    HANDSHAKE_TOO_SLOW = "handshake_too_slow"
    HANDSHAKE_FAILED = "handshake_failed"
    ANSWER_NOT_FETCHED = "answer_not_fetched"
