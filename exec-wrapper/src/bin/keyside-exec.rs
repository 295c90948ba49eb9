//! The wrapper alone. Everything is in the library.
//!
//! Without Rust's runtime around `main`: it would open /dev/null over closed stdio, ignore SIGPIPE and read
//! /proc/self/maps, which the child must not see and which a quick start cannot afford.
#![no_main]

use std::ffi::{c_char, c_int};

use keyside_exec_wrapper::{Globals, hide_panic_messages, run_to_code};

#[allow(unsafe_code, reason = "the symbol that the C runtime calls is called main")]
#[unsafe(no_mangle)]
extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    hide_panic_messages();
    // glibc hands the arguments to std before main.
    c_int::from(run_to_code(Globals::default(), std::env::args_os().skip(1).collect()))
}
