//! Model to Graph.
