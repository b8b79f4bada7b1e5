//! The README shows what the commands print, numbers aside: addresses and lines move with the code.

use system_tests::Board;

const README: &str = include_str!("../README.md");

/// The lines that follow this one, to the end of the block.
fn block(first: &str) -> impl Iterator<Item = &'static str> {
    README.lines().skip_while(move |line| *line != first).skip(1).take_while(|line| *line != "```")
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
    let shown: Vec<_> = block("$ make run FAULT=walk-cache/lost-freed-tables").map(without_numbers).collect();
    assert!(shown.len() > 10, "{shown:#?}");
    let printed = Board::new("cortex-a57", 4, "fault=walk-cache/lost-freed-tables").run().expect(1).stdout;
    let printed: Vec<String> =
        printed.lines().skip_while(|line| !line.starts_with("not ok")).map(without_numbers).collect();
    assert_eq!(shown, printed);
}

/// `...` stands for any number of lines. How many TLBIs there were, and stale entries, is chance: cores set access flags.
#[test]
fn a_run_is_shown_as_it_is_printed() {
    let shown: Vec<_> = block("TAP version 14").collect();
    assert!(shown.len() > 10, "{shown:#?}");
    let board = Board { qemu: vec!["-m", "1536M"], ..Board::new("cortex-a57", 4, "") };
    let printed = board.run().expect(0).stdout;
    let mut printed = printed.lines().skip_while(|line| *line != "TAP version 14").skip(1);
    let mut leap = false;
    for line in shown {
        if line.trim() == "..." {
            leap = true;
            continue;
        }
        let same = |other: &str| match (line.split_once("; "), other.split_once("; ")) {
            (Some((cases, _)), Some((other, rest))) if cases.starts_with("# tlbsan") => {
                cases == other && rest.ends_with("; clean")
            }
            _ => line == other,
        };
        let found = if leap { printed.any(same) } else { printed.next().is_some_and(same) };
        assert!(found, "{line}");
        leap = false;
    }
    assert_eq!(printed.next(), None);
}
