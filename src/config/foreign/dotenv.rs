//! Lines of `KEY=VALUE`, as Laravel, soketi and Docker Compose read them.

/// The variables of a text, in order; later ones take the place of earlier ones.
///
/// Comments, `export`, single and double quotes, escapes in double quotes, and `${NAME}` of what was set before.
///
/// # Errors
/// The number of the first line that is none of that, and what would be right. Never the line.
pub(in crate::config) fn parse(text: &str) -> Result<Vec<(String, String)>, (usize, String)> {
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let wrong = |message: &str| (at + 1, message.to_owned());
        let (name, rest) = line.split_once('=').ok_or_else(|| wrong("expected NAME=VALUE"))?;
        let name = name.trim();
        if name.is_empty() || name.contains(|c: char| !c.is_ascii_alphanumeric() && !"_.-".contains(c)) {
            return Err(wrong("expected NAME=VALUE, the name of letters, digits and underscores"));
        }
        let mut rest = rest.trim_start().to_owned();
        // A quoted value may go over several lines.
        let value = loop {
            match value_of(&rest, &variables) {
                Some(value) => break value,
                None => match lines.next() {
                    Some((_, more)) => {
                        rest.push('\n');
                        rest.push_str(more);
                    }
                    None => return Err(wrong("the quotation mark is not closed")),
                },
            }
        };
        variables.retain(|(known, _)| known != name);
        variables.push((name.to_owned(), value));
    }
    Ok(variables)
}

/// The value in what stands after `=`; none if its quotes are still open.
fn value_of(rest: &str, variables: &[(String, String)]) -> Option<String> {
    match rest.chars().next() {
        Some('\'') => rest[1..].split_once('\'').map(|(value, _)| value.to_owned()),
        Some('"') => {
            let mut value = String::new();
            let mut characters = rest[1..].chars();
            loop {
                match characters.next()? {
                    '"' => return Some(expanded(&value, variables)),
                    '\\' => match characters.next()? {
                        'n' => value.push('\n'),
                        'r' => value.push('\r'),
                        't' => value.push('\t'),
                        // Kept apart from a reference until these are looked up.
                        '$' => value.push(DOLLAR),
                        other => value.push(other),
                    },
                    other => value.push(other),
                }
            }
        }
        _ => {
            // A comment begins after a space.
            let value = rest.split_once(" #").map_or(rest, |(value, _)| value).trim();
            Some(if value.starts_with('#') { String::new() } else { expanded(value, variables) })
        }
    }
}

/// Stands for a dollar that begins no reference.
const DOLLAR: char = '\u{1}';

fn expanded(value: &str, variables: &[(String, String)]) -> String {
    let mut parts = value.split("${");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once('}') {
            Some((name, rest)) => {
                let known = variables.iter().find(|(known, _)| known == name);
                text.push_str(known.map_or("", |(_, value)| value));
                text.push_str(rest);
            }
            None => {
                text.push_str("${");
                text.push_str(part);
            }
        }
    }
    text.replace(DOLLAR, "$")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, name: &str, value: &str) {
        let variables = parse(text).expect(text);
        let found = variables.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
        assert_eq!(found, Some(value), "{text}");
    }

    #[test]
    fn values_are_read_as_shells_and_laravel_do() {
        check("A=1", "A", "1");
        check("export A = 1 # one", "A", "1");
        check("# B=2\r\n\r\nA=x#y\r\n", "A", "x#y");
        check("A='a \"b\" # $c'", "A", "a \"b\" # $c");
        check("A=\"a\\\"b\\n\" # c", "A", "a\"b\n");
        check("A=\nB=2", "A", "");
        check("A= # nothing", "A", "");
        check("A=1\nA=2", "A", "2");
        check("A=k\nB=\"${A}-${C}\"", "B", "k-");
        check("A=k\nB='${A}'", "B", "${A}");
        check("A=\"\\${B}\"", "A", "${B}");
        check("A='[\n  1\n]'", "A", "[\n  1\n]");
    }

    #[test]
    fn what_is_no_variable_names_its_line_and_not_itself() {
        assert_eq!(parse("A=1\nsecret").expect_err("no pair").0, 2);
        assert_eq!(parse("A=1\n\nB C=secret").expect_err("no name").0, 3);
        let (line, message) = parse("A=\"secret").expect_err("open");
        assert!(line == 1 && !message.contains("secret"), "{message}");
    }
}
