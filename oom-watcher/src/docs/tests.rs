use std::{fs, path::Path};

use super::*;
use crate::exposition;

/// Compares a committed page with what the generator says; with `UPDATE_DOCS=1` in the environment it writes the page.
#[track_caller]
fn check(name: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, generated).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "docs/{name} is not what is generated; rewrite it with UPDATE_DOCS=1");
}

#[test]
fn the_committed_pages_are_the_generated_ones() {
    check("configuration.md", &configuration());
    check("metrics.md", &metrics());
    check("event.schema.json", &event_schema());
    check("enrichment.schema.json", &enrichment_schema());
}

#[test]
fn every_variable_is_named_after_its_flag() {
    let mut command = Cli::command();
    command.build();
    let own = command.get_arguments().map(|arg| ("", arg));
    let drill = command.find_subcommand("drill").unwrap().get_arguments();
    let drill = drill.filter(|arg| !arg.is_global_set()).map(|arg| ("DRILL_", arg));
    let mut flags = 0;
    for (prefix, arg) in own.chain(drill) {
        let long = arg.get_long().unwrap();
        if !matches!(long, "help" | "version") {
            let expected = format!("{prefix}{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().unwrap().to_string_lossy(), expected);
            flags += 1;
        }
    }
    assert_eq!(flags, 23, "flags of the run and of drill");
}

#[test]
fn every_family_is_named_once_and_ends_its_help_with_a_full_stop() {
    let mut names: Vec<String> = exposition::families().map(Family::exported_name).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
    for family in exposition::families() {
        assert!(family.help.ends_with('.') && family.absent.ends_with('.'), "{}", family.name);
        assert!(!family.help.contains(['|', '\n', '\\']), "{}", family.name);
    }
}

#[test]
fn the_schema_knows_no_null() {
    for schema in [event_schema(), enrichment_schema()] {
        assert!(!schema.contains("\"null\""), "{schema}");
    }
}
