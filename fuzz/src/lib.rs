//! Fuzz targets for whatever reads text that Keyside did not write.
//!
//! * [`properties`] of the grammars and of a [`configuration`]: what must hold, as plain functions of bytes.
//! * `fuzz_targets/`: one libFuzzer program for each.
//! * `seeds/`: inputs to start from.
//! * `tests/`: the same functions over the seeds, on a stable toolchain.
//!
//! `cargo +nightly fuzz run template fuzz/corpus/template fuzz/seeds/template` from the root of the repository; the
//! first folder receives what the fuzzer finds.
#![forbid(unsafe_code)]

pub mod configuration;
pub mod properties;
