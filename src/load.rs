//! Text to Model.
