//! What a server answers on its port.
