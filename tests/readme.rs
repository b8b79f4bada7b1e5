//! The README shows what the commands print, numbers aside: addresses and lines move with the code.

use system_tests::Board;

const README: &str = include_str!("../README.md");

/// The lines of the block that begins with `$ COMMAND`.
fn block(command: &str) -> Vec<String> {
    let lines = README.lines().skip_while(|line| *line != format!("$ {command}")).skip(1);
    lines.take_while(|line| *line != "```").map(without_numbers).collect()
}

/// Hexadecimal numbers and what follows a colon become `N`.
fn without_numbers(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("0x").map(|at| at + 2).into_iter().chain(rest.find(".rs:").map(|at| at + 4)).min() {
        let (before, number) = rest.split_at(at);
        out += before;
        out.push('N');
        rest = number.trim_start_matches(|c: char| c.is_ascii_hexdigit() || c == '_');
    }
    out + rest
}

#[test]
fn the_story_of_2019_is_the_one_that_is_printed() {
    let shown = block("make run FAULT=walk-cache/lost-freed-tables");
    assert!(shown.len() > 10, "{shown:#?}");
    let printed = Board::new("cortex-a57", 4, "fault=walk-cache/lost-freed-tables").run().expect(1).stdout;
    let printed: Vec<String> =
        printed.lines().skip_while(|line| !line.starts_with("not ok")).map(without_numbers).collect();
    assert_eq!(shown, printed);
}
