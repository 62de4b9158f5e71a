//! What one guest said, as it is kept: its kernel, what attached, which fields events had, and what became of each scenario.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// One guest's line of the kept results.
pub(super) struct Guest(pub(super) Value);

impl Guest {
    /// Puts together what the suite printed in a guest: its check, some events, and an outcome for each scenario.
    pub(super) fn summarize(name: &str, results: &str) -> Result<Self> {
        let mut check = Value::Null;
        let mut fields = BTreeSet::new();
        let mut scenarios = Vec::new();
        for line in results.lines() {
            let mut value: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line:?}"))?;
            if let Some(event) = value.get("event") {
                collect("", event, &mut fields);
            } else if value.get("outcome").is_some() {
                scenarios.push(value);
            } else if value.get("check").is_some() {
                check = value["check"].take();
            }
        }
        Ok(Self(json!({
            "guest": name,
            "kernel": check["kernel"],
            "machine": check["machine"],
            "memory_cgroup": check["memory_cgroup"].as_str().and_then(|text| text.split(' ').next()),
            "hooks": check["hooks"],
            "missing": check["missing"],
            "fields": fields,
            "scenarios": scenarios,
        })))
    }

    /// Takes a kept line.
    pub(super) fn parse(line: &str) -> Result<Self> {
        Ok(Self(serde_json::from_str(line)?))
    }

    pub(super) fn name(&self) -> String {
        self.text("guest")
    }

    pub(super) fn text(&self, key: &str) -> String {
        self.0[key].as_str().unwrap_or("?").to_owned()
    }

    fn list(&self, key: &str) -> &[Value] {
        self.0[key].as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// amd64 first, then by version, then by name.
    pub(super) fn order(&self) -> (bool, Vec<u32>, String) {
        let digits = self.text("kernel");
        let version = digits.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect();
        (self.text("machine") != "x86_64", version, self.name())
    }

    /// By what a hook is attached.
    pub(super) fn hook(&self, name: &str) -> String {
        let hook = self.list("hooks").iter().find(|hook| hook["hook"] == name);
        hook.and_then(|hook| hook["attached"].as_str()).unwrap_or("–").to_owned()
    }

    /// Instructions that the verifier went through for a hook; not told before Linux 5.16.
    pub(super) fn verified(&self, hook: &str) -> Option<u64> {
        self.list("hooks").iter().find(|known| known["hook"] == hook)?["verified_instructions"].as_u64()
    }

    /// Names of the hooks.
    pub(super) fn hooks(&self) -> impl Iterator<Item = &str> {
        self.list("hooks").iter().filter_map(|hook| hook["hook"].as_str())
    }

    /// What the kernel does not give: field of the kernel, what it costs, why.
    pub(super) fn missing(&self) -> Vec<[String; 3]> {
        let word = |row: &Value, key: &str| row[key].as_str().unwrap_or("?").replace('|', "\\|");
        self.list("missing").iter().map(|row| ["field", "costs", "reason"].map(|key| word(row, key))).collect()
    }

    /// Fields that an event had, as paths with dots.
    pub(super) fn fields(&self) -> BTreeSet<&str> {
        self.list("fields").iter().filter_map(Value::as_str).collect()
    }

    /// Names of the scenarios that it ran.
    pub(super) fn scenarios(&self) -> BTreeSet<String> {
        self.list("scenarios").iter().filter_map(|row| row["scenario"].as_str()).map(str::to_owned).collect()
    }

    /// Names of the scenarios in the order in which it ran them.
    pub(super) fn scenarios_in_order(&self) -> impl Iterator<Item = &str> {
        self.list("scenarios").iter().filter_map(|row| row["scenario"].as_str())
    }

    /// What became of a scenario, and why.
    pub(super) fn outcome(&self, scenario: &str) -> Option<(&str, &str)> {
        let row = self.list("scenarios").iter().find(|row| row["scenario"] == scenario)?;
        Some((row["outcome"].as_str()?, row["reason"].as_str().unwrap_or_default()))
    }
}

/// Every member of an object that is no object itself.
fn collect(path: &str, value: &Value, into: &mut BTreeSet<String>) {
    let Value::Object(members) = value else {
        into.insert(path.to_owned());
        return;
    };
    for (name, member) in members {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        collect(&path, member, into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_become_one_line() {
        let results = concat!(
            r#"{"check":{"kernel":"6.1.0-50-cloud-amd64","machine":"x86_64","memory_cgroup":"v2 at /sys/fs/cgroup","#,
            r#""hooks":[{"hook":"mark_victim","attached":"raw_tracepoint","verified_instructions":7},"#,
            r#"{"hook":"out_of_memory","attached":null}],"missing":[{"field":"a|b","costs":"c","reason":"d"}]}}"#,
            "\n",
            r#"{"event":{"victim":{"pid":1,"uid":0},"node":"n"},"scenario":"leaf-limit"}"#,
            "\n",
            r#"{"outcome":"not possible","reason":"no disk","scenario":"swap-on"}"#,
        );
        let summary = Guest::summarize("6.1-amd64", results).unwrap();
        let guest = Guest::parse(&summary.0.to_string()).unwrap();
        assert_eq!((guest.name(), guest.text("memory_cgroup")), ("6.1-amd64".to_owned(), "v2".to_owned()));
        assert_eq!((guest.hook("mark_victim"), guest.hook("out_of_memory")), ("raw_tracepoint".into(), "–".into()));
        assert_eq!((guest.verified("mark_victim"), guest.verified("out_of_memory")), (Some(7), None));
        assert_eq!(guest.hooks().collect::<Vec<_>>(), ["mark_victim", "out_of_memory"]);
        assert_eq!(guest.missing(), [["a\\|b", "c", "d"]]);
        assert_eq!(guest.fields(), BTreeSet::from(["node", "victim.pid", "victim.uid"]));
        assert_eq!(guest.outcome("swap-on"), Some(("not possible", "no disk")));
        assert_eq!(guest.order().1, [6, 1, 0, 50, 64]);
    }
}
