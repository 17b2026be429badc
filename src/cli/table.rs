//! Lays out a table of text: aligned columns that fit the terminal, coloured if wanted.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::domain::escape_control;

/// A column of a [`Table`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    title: &'static str,
    /// May be cut so that the table fits the terminal. An id that someone copies is never cut.
    shrinks: bool,
    /// May be left out if the table is still too wide.
    is_optional: bool,
    aligns_right: bool,
}

impl Column {
    /// Makes a column whose values are always complete.
    pub(super) const fn new(title: &'static str) -> Self {
        Self { title, shrinks: false, is_optional: false, aligns_right: false }
    }

    /// Lets the column's values be cut on a narrow terminal.
    pub(super) const fn shrinks(self) -> Self {
        Self { shrinks: true, ..self }
    }

    /// Lets the column be left out on a narrow terminal: of the optional columns, the first ones first.
    pub(super) const fn optional(self) -> Self {
        Self { is_optional: true, ..self }
    }

    /// Aligns the column's values to the right: for numbers.
    pub(super) const fn number(self) -> Self {
        Self { aligns_right: true, ..self }
    }
}

/// How much attention a value needs. It decides the colour alone, so nothing is lost without colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Warning,
    Bad,
}

impl Tone {
    fn colour(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Warning => Some("33"),
            Self::Bad => Some("31"),
        }
    }
}

/// A value of a [`Table`], escaped.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn new(text: impl AsRef<str>) -> Self {
        Self { text: escape_control(text.as_ref()).into_owned(), tone: Tone::Plain }
    }

    /// Makes a cell of a time to the second, in RFC 3339; an empty one without a time.
    pub(super) fn time(time: Option<OffsetDateTime>) -> Self {
        let second = time.and_then(|time| time.replace_nanosecond(0).ok());
        Self::new(second.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default())
    }

    pub(super) fn tone(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

/// Rows under titles.
#[derive(Debug)]
pub(super) struct Table<'a> {
    columns: &'a [Column],
    rows: Vec<Vec<Cell>>,
}

/// Between two columns.
const GAP: &str = "  ";
/// A column is not cut below this width.
const MIN_WIDTH: usize = 8;

impl<'a> Table<'a> {
    pub(super) fn new(columns: &'a [Column], rows: Vec<Vec<Cell>>) -> Self {
        Self { columns, rows }
    }

    /// Returns the table as lines. `width`: the terminal's columns.
    pub(super) fn text(&self, width: Option<usize>, colour: bool) -> String {
        let widths = self.widths(width);
        let mut text = String::new();
        let titles: Vec<Cell> = self.columns.iter().map(|column| Cell::new(column.title)).collect();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, column), width) in row.iter().zip(self.columns).zip(&widths) {
                let Some(width) = *width else { continue };
                let shown = cut(&cell.text, width);
                let padding = " ".repeat(width.saturating_sub(shown.chars().count()));
                let shown = match cell.tone.colour().filter(|_| colour && !shown.is_empty()) {
                    Some(code) => format!("\u{1b}[{code}m{shown}\u{1b}[0m"),
                    None => shown,
                };
                let (before, after) = if column.aligns_right { (&*padding, "") } else { ("", &*padding) };
                line.extend([before, &shown, after, GAP]);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Returns the titles of the columns that are left out of a table of this width.
    pub(super) fn left_out(&self, width: Option<usize>) -> Vec<&'static str> {
        let widths = self.widths(width).into_iter().zip(self.columns);
        widths.filter_map(|(width, column)| width.is_none().then_some(column.title)).collect()
    }

    /// Returns the width of each column: that of its longest value, less if the table is too wide and the column may
    /// be cut. `None`: the column is left out, because the table does not fit with it.
    fn widths(&self, limit: Option<usize>) -> Vec<Option<usize>> {
        let longest = |index: usize, title: &str| {
            let cells = self.rows.iter().filter_map(|row| row.get(index));
            cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0).max(title.chars().count())
        };
        let columns = self.columns.iter().enumerate();
        let mut widths: Vec<Option<usize>> =
            columns.map(|(index, column)| Some(longest(index, column.title))).collect();
        let Some(limit) = limit else { return widths };
        loop {
            let narrowed = self.narrowed(widths.clone(), limit);
            match self.next_to_leave_out(&widths) {
                Some(next) if total(&narrowed) > limit => widths[next] = None,
                _ => return narrowed,
            }
        }
    }

    /// Cuts the widest column that may be cut, until the table fits or no column may be cut any more.
    fn narrowed(&self, mut widths: Vec<Option<usize>>, limit: usize) -> Vec<Option<usize>> {
        while total(&widths) > limit {
            let shown = widths.iter_mut().zip(self.columns);
            let may_shrink = shown.filter_map(|(width, column)| Some((width.as_mut()?, column))).filter(
                |(width, column)| column.shrinks && **width > MIN_WIDTH.max(column.title.chars().count()),
            );
            let Some((widest, _)) = may_shrink.max_by_key(|(width, _)| **width) else { break };
            *widest -= 1;
        }
        widths
    }

    /// Returns the optional column that is left out next: one without values, else the first one.
    fn next_to_leave_out(&self, widths: &[Option<usize>]) -> Option<usize> {
        let optional = || {
            let columns = self.columns.iter().zip(widths).enumerate();
            columns
                .filter(|(_, (column, width))| column.is_optional && width.is_some())
                .map(|(index, _)| index)
        };
        let is_empty = |index: &usize| {
            self.rows.iter().all(|row| row.get(*index).is_none_or(|cell| cell.text.is_empty()))
        };
        optional().find(is_empty).or_else(|| optional().next())
    }
}

/// Returns the width of a table with columns of these widths.
fn total(widths: &[Option<usize>]) -> usize {
    let shown = widths.iter().flatten();
    shown.clone().sum::<usize>() + GAP.len() * shown.count().saturating_sub(1)
}

/// Cuts a text to a width; the last character says so.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut shown: String = text.chars().take(width.saturating_sub(1)).collect();
    shown.push('…');
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] =
        [Column::new("ID"), Column::new("AMOUNT").number(), Column::new("ERROR").shrinks()];

    fn table() -> Table<'static> {
        let row = |id: &str, amount: &str, error: &str| vec![id.into(), amount.into(), error.into()];
        Table::new(
            &COLUMNS,
            vec![
                row("po_1", "12.50", "DECLINED"),
                row("po_1000", "1250.00", "the provider says a long sentence\u{1b}[2J"),
            ],
        )
    }

    #[test]
    fn columns_are_aligned_and_control_characters_written_out() {
        let text = table().text(None, false);
        assert_eq!(
            text,
            "ID        AMOUNT  ERROR\n\
             po_1       12.50  DECLINED\n\
             po_1000  1250.00  the provider says a long sentence\\u{1b}[2J\n"
        );
    }

    #[test]
    fn a_table_fits_the_terminal_and_ids_stay_complete() {
        let text = table().text(Some(30), false);
        assert!(text.lines().all(|line| line.chars().count() <= 30), "{text}");
        assert!(text.contains("po_1000  1250.00  the provide…"), "{text}");
        // It cannot become narrower than its complete columns.
        assert!(table().text(Some(5), false).contains("po_1000"));
    }

    #[test]
    fn optional_columns_are_left_out_of_a_narrow_table_the_empty_ones_first() {
        let column = |title| Column::new(title).shrinks().optional();
        let columns = [Column::new("ID"), column("CONNECTOR"), column("EMPTY"), column("ERROR")];
        let row = vec!["po_1".into(), "sandbox".into(), "".into(), "DECLINED".into()];
        let table = Table::new(&columns, vec![row]);
        for (width, titles, left_out) in [
            (32, "ID    CONNECTOR  EMPTY  ERROR", &[][..]),
            (28, "ID    CONNECTOR  ERROR", &["EMPTY"]),
            (24, "ID    ERROR", &["CONNECTOR", "EMPTY"]),
            (3, "ID", &["CONNECTOR", "EMPTY", "ERROR"]),
        ] {
            assert_eq!(table.text(Some(width), false).lines().next(), Some(titles), "{width}");
            assert_eq!(table.left_out(Some(width)), left_out, "{width}");
        }
        assert!(table.left_out(None).is_empty());
    }

    #[test]
    fn colours_are_written_only_if_wanted() {
        let row = |text: &str| vec![Cell::new(text).tone(Tone::Bad)];
        let table = Table::new(&COLUMNS[..1], vec![row("po_1")]);
        assert!(table.text(None, true).contains("\u{1b}[31mpo_1\u{1b}[0m"));
        assert!(!table.text(None, false).contains('\u{1b}'));
        assert!(!Table::new(&COLUMNS[..1], vec![row("")]).text(None, true).contains('\u{1b}'));
    }

    #[test]
    fn a_time_is_written_to_the_second() {
        let time = time::macros::datetime!(2026-11-30 01:13:42.75 UTC);
        assert_eq!(Cell::time(Some(time)).text, "2026-11-30T01:13:42Z");
        assert_eq!(Cell::time(None).text, "");
    }
}
