//! What `develop` of a compose file asks for while somebody works on the source: which changes matter ([`rules`]), what is
//! there now ([`picture`], [`site`]), what of it a container lacks ([`lacks`]), and how it gets that wherever it runs ([`deliver`], [`hosts`]).
//!
//! Changes are never replayed. What the kernel tells says where to look; what is found then has a number, and each container
//! has the number up to which it has all. So a container that was made anew, a host that was away and a queue that ran over
//! are the same case: something has a lower number than it should.
//!
//! Source: compose-spec develop.md, and Docker Compose 2.40, pkg/compose/watch.go.

pub(crate) mod deliver;
pub(crate) mod files;
pub(crate) mod hosts;
pub(crate) mod lacks;
pub(crate) mod picture;
pub(crate) mod quiet;
pub(crate) mod rules;
pub(crate) mod site;
