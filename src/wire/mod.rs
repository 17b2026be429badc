//! JSON to domain and back: the contract's spelling lives here and nowhere else.
