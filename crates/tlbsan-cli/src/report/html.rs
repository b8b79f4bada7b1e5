pub(super) fn page(_: &super::Report<'_>) -> String {
    String::new()
}
