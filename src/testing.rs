//! Fakes and builders.
