//! Rows that go from one store to another, and back.

use super::*;
use crate::outbox::Desk;
use crate::outbox::row::Claim;

async fn exported(store: &Arc<dyn Store>) -> Vec<String> {
    let desk = Desk::new(store.clone(), Clock::from_system(), None);
    let page = desk.export(&soon(), json!({})).await.unwrap();
    serde_json::from_value(page["lines"].clone()).unwrap()
}

async fn imported(store: &Arc<dyn Store>, lines: &[String]) -> Value {
    let desk = Desk::new(store.clone(), Clock::from_system(), None);
    desk.import(&soon(), json!({"lines": lines})).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_back_are_known() {
    let (here, there) = (Folder::new(), Folder::new());
    let (here, there) = (another(&here.file()).await, another(&there.file()).await);
    here.insert(&soon(), vec![row("one"), row("two")]).await.unwrap();
    let first = exported(&here).await;
    assert_eq!(imported(&there, &first).await, json!({"imported": 2, "known": 0}));
    let second = exported(&there).await;
    assert_eq!(imported(&here, &second).await, json!({"imported": 0, "known": 2}));
    assert_eq!(imported(&there, &second).await, json!({"imported": 0, "known": 2}));
    // What died there meanwhile stays dead.
    let claim = Claim {
        producer: "orders".into(),
        now: i64::MAX / 2,
        until: i64::MAX / 2,
        rows: 9,
        bytes: u64::MAX,
        tell: true,
    };
    for claimed in there.claim(&soon(), claim).await.unwrap().rows {
        let how = super::super::row::How::Dead { counted: true, error: "{}".into(), rest: None, tell: false };
        let end = super::super::row::End { id: claimed.id, token: claimed.token, now: 2000, how };
        assert_eq!(there.settle(&soon(), vec![end]).await.unwrap(), [true]);
    }
    assert_eq!(imported(&there, &first).await, json!({"imported": 0, "known": 2}));
    assert_eq!(there.stats(&soon(), Some("orders")).await.unwrap()[0].rows, [0, 0, 0, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_nobody_is_refused() {
    let folder = Folder::new();
    let store = another(&folder.file()).await;
    store.insert(&soon(), vec![row("one")]).await.unwrap();
    let line = exported(&store).await.remove(0);
    for id in ["", "a\nb"] {
        let mut row: Value = serde_json::from_str(&line).unwrap();
        row["producer"] = json!(id);
        let desk = Desk::new(store.clone(), Clock::from_system(), None);
        let error = desk.import(&soon(), json!({"lines": [row.to_string()]})).await.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert!(error.message().contains("line 1"), "{error}");
    }
}
