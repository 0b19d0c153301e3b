//! `make bench`: the shipped program against what people use today, in one run on one machine; a file for each theme.

#![allow(clippy::disallowed_methods, reason = "a benchmark starts the programs that it measures itself")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]
#![allow(unreachable_pub, reason = "as in support, an item is for the others or private")]
#![allow(clippy::print_stdout, reason = "the table is the result")]

mod references;
mod render;
mod server;
mod sops;
#[path = "../support/mod.rs"]
mod support;
mod table;
