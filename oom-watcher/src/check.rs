//! `oom-watcher check`: what this machine gives, which hooks attach and why not the others, and what that costs.
//!
//! It tries for real: programs are loaded and attached, and detached at its end.

use std::{fmt::Write as _, io, process::ExitCode};

use serde::Serialize;

use crate::{
    audit,
    config::Config,
    escape::Escaped,
    kernel::{
        facts::{Fact, Facts, Lockdown, MemoryCgroup, Roots},
        load::{self, HookStatus},
        plan::{self, Plan},
    },
    oom_score,
};

/// Why the findings could not be given.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Standard output.
    #[error("cannot write to standard output")]
    Write(#[source] io::Error),
    /// JSON.
    #[error("cannot put the findings into JSON")]
    Json(#[source] serde_json::Error),
}

/// Everything found.
#[derive(Debug, Serialize)]
struct Findings {
    /// The watcher can run here.
    can_run: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    version: &'static str,
    kernel: String,
    machine: String,
    btf: String,
    capabilities: Vec<&'static str>,
    lockdown: String,
    perf_event_paranoid: String,
    memory_cgroup: String,
    own_memory_limit: String,
    own_oom_score_adj: String,
    oom_kills_since_boot: String,
    hooks: Vec<HookFinding>,
    /// What reports lack here, beside what the hooks that are not attached cost.
    missing: Vec<MissingFinding>,
}

#[derive(Debug, Serialize)]
struct HookFinding {
    hook: &'static str,
    /// The method that attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    attached: Option<&'static str>,
    /// Instructions that the verifier went through (known from Linux 5.16 on).
    #[serde(skip_serializing_if = "Option::is_none")]
    verified_instructions: Option<u32>,
    failures: Vec<Failure>,
    /// What its absence costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    costs: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Failure {
    method: &'static str,
    reason: String,
}

#[derive(Debug, Serialize)]
struct MissingFinding {
    field: &'static str,
    costs: &'static str,
    reason: String,
}

/// Looks, tries and prints: success when the watcher can run here.
pub fn check(config: &Config, json: bool) -> Result<ExitCode, CheckError> {
    let findings = findings(config);
    let text = if json { serde_json::to_string(&findings).map_err(CheckError::Json)? } else { text(&findings) };
    match io::Write::write_all(&mut io::stdout(), format!("{}\n", text.trim_end()).as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(CheckError::Write(error)),
        _ => {}
    }
    Ok(if findings.can_run { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn findings(config: &Config) -> Findings {
    let facts = Facts::probe(&Roots::default());
    let mut findings = describe(&facts);
    let plan = match plan::plan(&facts) {
        Ok(plan) => plan,
        Err(error) => {
            findings.error = Some(crate::error::chain(&error));
            return findings;
        }
    };
    findings.missing = missing(&plan);
    match load::load(&plan, config.ring_buffer_bytes) {
        Ok(loaded) => {
            findings.can_run = true;
            findings.hooks = loaded.hooks.iter().map(hook).collect();
        }
        Err(error) => findings.error = Some(crate::error::chain(&error)),
    }
    findings
}

fn describe(facts: &Facts) -> Findings {
    Findings {
        can_run: false,
        error: None,
        version: env!("CARGO_PKG_VERSION"),
        kernel: fact(&facts.kernel_release, String::clone),
        machine: facts.machine.clone(),
        btf: match &facts.btf {
            Ok(btf) => format!("{} types", btf.type_count()),
            Err(error) => crate::error::chain(error),
        },
        capabilities: capabilities(facts),
        lockdown: fact(&facts.lockdown, |mode| {
            match mode {
                Lockdown::None => "none",
                Lockdown::Integrity => "integrity",
                Lockdown::Confidentiality => "confidentiality",
            }
            .to_owned()
        }),
        perf_event_paranoid: fact(&facts.perf_event_paranoid, ToString::to_string),
        memory_cgroup: fact(&facts.memory_cgroup, |version| match version {
            MemoryCgroup::V1(mount) => format!("v1 at {}", mount.display()),
            MemoryCgroup::V2(mount) => format!("v2 at {}", mount.display()),
            MemoryCgroup::None => "none".to_owned(),
        }),
        own_memory_limit: fact(&facts.own_memory_limit, |limit| {
            limit.map_or_else(|| "none".to_owned(), |bytes| format!("{bytes} bytes"))
        }),
        own_oom_score_adj: own_oom_score_adj(facts),
        oom_kills_since_boot: audit::kernel_kills(std::path::Path::new("/proc"))
            .map_or_else(|error| crate::error::chain(&error), |kills| kills.to_string()),
        hooks: Vec::new(),
        missing: Vec::new(),
    }
}

/// What it is, and what it becomes when the watcher runs.
fn own_oom_score_adj(facts: &Facts) -> String {
    match oom_score::current(std::path::Path::new("/proc")) {
        Err(error) => crate::error::chain(&error),
        Ok(value) if value <= oom_score::WANTED => value.to_string(),
        Ok(value) if facts.capabilities.as_ref().is_ok_and(|capabilities| capabilities.sys_resource) => {
            format!("{value}, lowered to {} when it runs", oom_score::WANTED)
        }
        Ok(value) => format!(
            "{value}: the OOM killer may choose the watcher early; {} takes CAP_SYS_RESOURCE or, in Kubernetes, the priority \
             class system-node-critical",
            oom_score::WANTED
        ),
    }
}

fn fact<T>(fact: &Fact<T>, show: impl FnOnce(&T) -> String) -> String {
    match fact {
        Ok(value) => show(value),
        Err(unread) => format!("not known: {}", unread.0),
    }
}

fn capabilities(facts: &Facts) -> Vec<&'static str> {
    let Ok(capabilities) = &facts.capabilities else { return Vec::new() };
    [
        (capabilities.bpf, "CAP_BPF"),
        (capabilities.perfmon, "CAP_PERFMON"),
        (capabilities.sys_admin, "CAP_SYS_ADMIN"),
        (capabilities.sys_resource, "CAP_SYS_RESOURCE"),
        (capabilities.syslog, "CAP_SYSLOG"),
    ]
    .into_iter()
    .filter_map(|(has, name)| has.then_some(name))
    .collect()
}

fn missing(plan: &Plan) -> Vec<MissingFinding> {
    plan.missing
        .iter()
        .map(|missing| MissingFinding { field: missing.field, costs: missing.costs, reason: missing.reason.clone() })
        .collect()
}

fn hook(status: &HookStatus) -> HookFinding {
    HookFinding {
        hook: status.hook.as_str(),
        attached: status.attached.map(plan::Method::as_str),
        verified_instructions: status.verified_instructions,
        failures: status
            .failures
            .iter()
            .map(|(method, reason)| Failure { method: method.as_str(), reason: reason.clone() })
            .collect(),
        costs: status.attached.is_none().then(|| status.hook.costs()),
    }
}

/// For a person: one fact a line, then the hooks, then the verdict.
fn text(findings: &Findings) -> String {
    let mut out = String::new();
    let capabilities =
        if findings.capabilities.is_empty() { "none that matter".to_owned() } else { findings.capabilities.join(" ") };
    let rows = [
        ("oom-watcher", findings.version),
        ("kernel", &findings.kernel),
        ("machine", &findings.machine),
        ("BTF", &findings.btf),
        ("capabilities", &capabilities),
        ("lockdown", &findings.lockdown),
        ("perf_event_paranoid", &findings.perf_event_paranoid),
        ("memory cgroup", &findings.memory_cgroup),
        ("own memory limit", &findings.own_memory_limit),
        ("own oom_score_adj", &findings.own_oom_score_adj),
        ("OOM kills since boot", &findings.oom_kills_since_boot),
    ];
    for (name, value) in rows {
        line(&mut out, format_args!("{name:<21} {}", Escaped(value)));
    }
    for hook in &findings.hooks {
        let state = hook.attached.map_or_else(|| "not attached".to_owned(), |method| format!("attached by {method}"));
        line(&mut out, format_args!("hook {:<16} {state}", hook.hook));
        for failure in &hook.failures {
            line(&mut out, format_args!("    not by {}: {}", failure.method, Escaped(&failure.reason)));
        }
        if let Some(costs) = hook.costs {
            line(&mut out, format_args!("    without it: {costs}"));
        }
    }
    for missing in &findings.missing {
        line(&mut out, format_args!("missing {}: {}", missing.field, Escaped(&missing.reason)));
        line(&mut out, format_args!("    without it: {}", missing.costs));
    }
    match &findings.error {
        Some(error) => line(&mut out, format_args!("oom-watcher cannot run here: {}", Escaped(error))),
        None => line(&mut out, format_args!("oom-watcher can run here: every victim is seen")),
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}
