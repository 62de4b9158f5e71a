//! No command line makes the configuration panic, and what it takes is within the stated limits.
//!
//! The input is the arguments, with NUL between them.
#![no_main]

use std::hint::black_box;

use clap::Parser;
use libfuzzer_sys::fuzz_target;
use oom_watcher::{
    cli::Cli,
    config::{Config, Surroundings, drill_timeout},
};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    drop(black_box(drill_timeout(&text)));
    let arguments = std::iter::once("oom-watcher").chain(text.split('\0'));
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            black_box(error.to_string());
            return;
        }
    };
    let surroundings =
        Surroundings { host_name: "worker-1".to_owned(), stdout_is_terminal: false, page_size: 4096 };
    match Config::new(&cli.options, &surroundings) {
        Ok(config) => {
            assert!(config.ring_buffer_bytes.is_power_of_two());
            assert!(!config.node_name.is_empty() && config.node_name.len() <= 253);
            assert!((100..=1_000_000).contains(&config.metrics.max_series));
        }
        Err(error) => drop(black_box(error.to_string())),
    }
});
