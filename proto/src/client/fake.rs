//! A server that misbehaves as told, for the client's tests.
