//! Whose a cgroup path is: the corpus of shapes met in the wild, and what holds for every path there can be.

use oom_watcher::cgroup::{ContainerId, Identity, Node, PodIdentity, identify};
use proptest::prelude::*;

const CORPUS: &str = include_str!("fixtures/cgroup_paths.tsv");

const UID: &str = "0f8a1c2e-9b3d-4e5f-8a7b-1c2d3e4f5a6b";
const STATIC_UID: &str = "36b6d6be73b1065af369b3985edafa09";
const OTHER_UID: &str = "d3adbeef-0000-4000-8000-00000000cafe";
const ID: &str = "9148f5c0ffee00112233445566778899aabbccddeeff00112233445566772ff5";
const OTHER_ID: &str = "28c280aa55aa55aa55aa55aa55aa55aa55aa55aa55aa55aa55aa55aa55aa55ee";
const NODE_ID: &str = "77e0b1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e";

fn expand(text: &str) -> String {
    text.replace("{U}", UID)
        .replace("{u}", &UID.replace('-', "_"))
        .replace("{V}", OTHER_UID)
        .replace("{v}", &OTHER_UID.replace('-', "_"))
        .replace("{H}", STATIC_UID)
        .replace("{C}", ID)
        .replace("{D}", OTHER_ID)
        .replace("{N}", NODE_ID)
}

/// The names of a path as the kernel gives them: the root's is empty.
fn segments(path: &str) -> Vec<&str> {
    if path == "/" { vec![""] } else { path.split('/').collect() }
}

/// The identity in the words of the corpus.
fn describe(identity: &Identity) -> String {
    match identity {
        Identity::Pod(pod) => describe_pod(pod),
        Identity::PlainContainer(plain) => {
            format!("plain {}:{} @{}", plain.runtime.map_or("?", |runtime| runtime.as_str()), plain.id, plain.level)
        }
        Identity::SystemdUnit(unit) => format!("unit {} @{}", unit.name, unit.level),
        Identity::Qos(class) => format!("qos {}", class.as_str()),
        Identity::Kubepods => "kubepods".into(),
        Identity::Root => "root".into(),
        Identity::Other => "other".into(),
        Identity::Foreign => "foreign".into(),
    }
}

fn describe_pod(pod: &PodIdentity) -> String {
    let level = |level: Option<usize>| level.map_or("-".to_owned(), |level| level.to_string());
    let kubepods = level(pod.kubepods_level);
    let container = level(pod.container.map(|container| container.level));
    let mut words = vec![format!("pod {} {} {kubepods}/{}/{container}", pod.uid, pod.qos.as_str(), pod.pod_level)];
    if let Some(container) = pod.container {
        words.push(format!("{}:{}", container.runtime.map_or("?", |runtime| runtime.as_str()), container.id));
        words.extend(container.monitor.then(|| "monitor".to_owned()));
    }
    words.extend(pod.sub_cgroup.as_ref().map(|sub| format!("sub={sub}")));
    words.join(" ")
}

/// The node of a corpus line `@node <path> <uid>`.
fn node(columns: &[&str]) -> Node {
    match columns {
        ["-"] => Node::default(),
        [path, uid] => Node::from_own(&segments(path), (*uid != "-").then_some(*uid)),
        _ => panic!("a node line has a path and a UID: {columns:?}"),
    }
}

#[test]
fn every_shape_of_the_corpus_is_recognised() {
    let mut place = Node::default();
    let mut checked = 0;
    for (number, line) in CORPUS.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let line = expand(line);
        let columns: Vec<&str> = line.split('\t').collect();
        if columns[0] == "@node" {
            place = node(&columns[1..]);
            continue;
        }
        let [path, expected, _source] = columns[..] else { panic!("line {}: three columns", number + 1) };
        let found = describe(&identify(&segments(path), &place));
        assert_eq!(found, expected, "line {} of the corpus: {path}", number + 1);
        checked += 1;
    }
    assert!(checked >= 60, "the corpus has shrunk to {checked} paths");
}

#[test]
fn a_path_without_its_outermost_part_is_nobodys() {
    let path = expand("/kubepods/burstable/pod{U}/{C}");
    let whole = segments(&path);
    assert!(matches!(identify(&whole, &Node::default()), Identity::Pod(_)));
    for missing in 1..=whole.len() {
        assert_eq!(identify(&whole[missing..], &Node::default()), Identity::Other);
    }
}

#[test]
fn an_id_is_whole_or_none() {
    assert_eq!(ContainerId::parse(ID).unwrap().to_string(), ID);
    for wrong in [&ID[1..], &format!("{ID}0"), &ID.to_uppercase(), &ID.replace('9', "g"), "", &"é".repeat(32)] {
        assert_eq!(ContainerId::parse(wrong), None, "{wrong}");
    }
}

/// A name that a directory may have: arbitrary text, or made of the words that the grammar knows.
fn any_segment() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "kubepods",
        "burstable",
        "besteffort",
        "pod",
        "docker",
        "crio",
        "cri-containerd",
        "conmon",
        "libpod",
        "user@",
        "machine",
        ".slice",
        ".scope",
        ".service",
        "-",
        "_",
        ":",
        "é",
        "\u{fffd}",
        UID,
        STATIC_UID,
        ID,
        "0",
    ]);
    prop_oneof![".{0,90}", prop::collection::vec(word, 0..7).prop_map(|words| words.concat())]
}

fn any_path() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(any_segment(), 0..14)
}

/// The path of some pod's container, with either driver.
fn pod_path() -> impl Strategy<Value = (String, Vec<String>)> {
    let uid = prop_oneof!["[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "[0-9a-f]{32}"];
    let shape = prop::sample::select(vec![
        "kubepods/podP/C",
        "kubepods/besteffort/podP/C/init.scope",
        "kubepods.slice/kubepods-podQ.slice/crio-C.scope/container",
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podQ.slice/cri-containerd-C.scope",
        "kubepods-burstable-podQ.slice:cri-containerd:C",
    ]);
    (uid, "[0-9a-f]{64}", shape).prop_map(|(uid, id, shape)| {
        let escaped = uid.replace('-', "_");
        let fill = |name: &str| name.replace('P', &uid).replace('Q', &escaped).replace('C', &id);
        let path = shape.split('/').map(fill).collect();
        (uid, path)
    })
}

fn with_root(names: &[String]) -> Vec<&str> {
    std::iter::once("").chain(names.iter().map(String::as_str)).collect()
}

proptest! {
    #[test]
    fn no_path_makes_it_panic(names in any_path(), own in any_path(), uid in any_segment()) {
        let node = Node::from_own(&with_root(&own), Some(&uid));
        let without_root: Vec<&str> = names.iter().map(String::as_str).collect();
        identify(&without_root, &node);
        identify(&with_root(&names), &node);
        identify(&with_root(&names), &Node::default());
    }

    #[test]
    fn an_id_stands_in_the_path_with_no_digit_before_or_after(names in any_path()) {
        let id = match identify(&with_root(&names), &Node::default()) {
            Identity::Pod(pod) => pod.container.map(|container| (container.id, container.level)),
            Identity::PlainContainer(plain) => Some((plain.id, plain.level)),
            _ => None,
        };
        if let Some((id, level)) = id {
            let name = &names[level - 1];
            let (before, after) = name.rsplit_once(&id.to_string()).expect("the whole id is in the name of its level");
            prop_assert!(!before.ends_with(|c: char| c.is_ascii_alphanumeric()), "{name}");
            prop_assert!(after.is_empty() || after == ".scope", "{name}");
        }
    }

    #[test]
    fn levels_point_into_the_path_from_the_root_inward(names in any_path()) {
        if let Identity::Pod(pod) = identify(&with_root(&names), &Node::default()) {
            prop_assert!(pod.kubepods_level.is_none_or(|root| root < pod.pod_level));
            prop_assert!(pod.pod_level <= names.len());
            let container = pod.container.map_or(pod.pod_level, |container| container.level);
            prop_assert!(container == pod.pod_level || container == pod.pod_level + 1);
            prop_assert_eq!(pod.sub_cgroup.is_some(), names.len() > container);
        }
    }

    #[test]
    fn the_outermost_pod_wins((uid, mut outer) in pod_path(), (_, inner) in pod_path()) {
        outer.extend(inner);
        let Identity::Pod(pod) = identify(&with_root(&outer), &Node::default()) else {
            panic!("no pod in {outer:?}");
        };
        prop_assert_eq!(pod.uid, uid);
    }

    #[test]
    fn the_agents_own_node_is_never_foreign((uid, own) in pod_path(), above in any_path(), sibling in pod_path()) {
        let own: Vec<String> = above.iter().chain(&own).cloned().collect();
        let node = Node::from_own(&with_root(&own), Some(&uid));
        prop_assert_ne!(identify(&with_root(&own), &node), Identity::Foreign);
        let sibling: Vec<String> = above.iter().chain(&sibling.1).cloned().collect();
        prop_assert_ne!(identify(&with_root(&sibling), &node), Identity::Foreign);
    }
}
