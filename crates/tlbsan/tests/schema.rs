//! docs/records.schema.json says what the types say.

use std::path::Path;
use tlbsan::Record;

#[test]
fn the_documented_schema_is_that_of_the_records() {
    let mut schema = schemars::schema_for!(Record);
    schema.insert("title".into(), "A line of tlbsan --json".into());
    let text = serde_json::to_string_pretty(&schema).expect("plain data") + "\n";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/records.schema.json");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&file, &text).expect("docs/ can be written");
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == text,
        "docs/records.schema.json is out of date: UPDATE_SCHEMA=1 cargo test -p tlbsan --all-features"
    );
}
