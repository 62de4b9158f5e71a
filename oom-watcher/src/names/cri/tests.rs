//! What is believed of an answer, and what becomes of a runtime that gives none. Real answers are in the container suite.

use std::{error::Error as _, os::unix::net::UnixListener};

use tokio::time::Instant;

use super::*;

const ID: &str = "9148f5c3a8b7d6e5f40312233445566778899aabbccddeeff001122334452ff5";

fn id() -> ContainerId {
    ContainerId::parse(ID).unwrap()
}

fn container(id: &str, labels: &[(&str, &str)]) -> Container {
    let labels = labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    Container { id: id.to_owned(), metadata: Some(ContainerMetadata { attempt: 3 }), labels }
}

const LABELS: [(&str, &str); 4] = [(NAMESPACE, "team-a"), (POD, "web-0"), (POD_UID, "u-1"), (CONTAINER, "app")];

#[test]
fn the_labels_are_the_names() {
    let name = ContainerName { namespace: "team-a".to_owned(), pod: "web-0".to_owned(), container: "app".to_owned() };
    let expected = Found { name, pod_uid: "u-1".to_owned(), restart_count: 3 };
    assert_eq!(found(container(ID, &LABELS), &id()), Some(expected));
}

#[test]
fn what_is_not_the_kubelets_is_nobodys() {
    let longer = format!("{}0", &ID[1..]);
    let rows = [
        ("another id", container(&longer, &LABELS)),
        ("a prefix of the id", container(&ID[..12], &LABELS)),
        ("no labels", container(ID, &[])),
        ("no namespace", container(ID, &LABELS[1..])),
        ("no container", container(ID, &LABELS[..3])),
        ("no name of Kubernetes", container(ID, &[LABELS[0], (POD, "web\u{1b}[0m"), LABELS[2], LABELS[3]])),
        ("a namespace with a slash", container(ID, &[(NAMESPACE, "../x"), LABELS[1], LABELS[2], LABELS[3]])),
    ];
    for (what, answer) in rows {
        assert_eq!(found(answer, &id()), None, "{what}");
    }
}

#[tokio::test]
async fn nobody_listens() {
    let folder = tempfile::tempdir().unwrap();
    let cri = Cri::new(folder.path().join("none.sock"));
    let error = cri.container(&id()).await.unwrap_err();
    assert!(matches!(error, CriError::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains("none.sock") && error.source().is_some(), "{error}");
    assert_eq!(cri.stats(), CriStats { answered: 0, failed: 1 });
}

/// Questions wait for each other, and still each has an end.
#[tokio::test]
async fn a_runtime_that_says_nothing_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("mute.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let (cri, began) = (Cri::new(socket), Instant::now());
    let id = id();
    let (first, second) = tokio::join!(cri.container(&id), cri.container(&id));
    for answer in [first, second] {
        assert!(matches!(answer, Err(CriError::Slow { .. })), "{answer:?}");
    }
    assert!((DEADLINE..DEADLINE * 2).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(cri.stats(), CriStats { answered: 0, failed: 2 });
}
