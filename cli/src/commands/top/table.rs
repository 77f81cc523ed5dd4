//! A list on the screen: its rows in an order, those that a filter lets through, and the one that is
//! chosen. The choice follows its row wherever that goes.

use super::columns::Row;

/// Bytes of a filter: more is not typed by hand.
const FILTER_BYTES_MAX: usize = 200;

/// One table and what a person has done to it.
#[derive(Debug)]
pub(super) struct Table<R> {
    rows: Vec<R>,
    /// Rows that are let through, in order.
    order: Vec<usize>,
    /// Which column it is sorted by.
    pub(super) sorted: usize,
    pub(super) descending: bool,
    filter: String,
    /// The id of the chosen row, and where it was in the order.
    chosen: Option<String>,
    position: usize,
    /// The first row of the order that is on the screen.
    top: usize,
    /// Nothing has been told yet: no list is another thing than an empty one.
    pub(super) is_known: bool,
}

impl<R: Row> Default for Table<R> {
    fn default() -> Table<R> {
        let (sorted, descending) = R::first_sort();
        Table {
            rows: Vec::new(),
            order: Vec::new(),
            sorted,
            descending,
            filter: String::new(),
            chosen: None,
            position: 0,
            top: 0,
            is_known: false,
        }
    }
}

impl<R: Row> Table<R> {
    pub(super) fn set_rows(&mut self, rows: Vec<R>, now_ms: u64) {
        self.rows = rows;
        self.is_known = true;
        self.arrange(now_ms);
    }

    pub(super) fn forget(&mut self) {
        *self = Table {
            sorted: self.sorted,
            descending: self.descending,
            ..Table::default()
        };
    }

    /// Sorts and filters anew.
    fn arrange(&mut self, now_ms: u64) {
        let lower = self.filter.to_lowercase();
        let rows = &self.rows;
        let through = |index: &usize| lower.is_empty() || rows[*index].matches(&lower);
        self.order = (0..rows.len()).filter(through).collect();
        let order = R::all_columns()[self.sorted].order;
        let descending = self.descending;
        // Equal ones stay in the order in which they came, whichever way round.
        self.order.sort_by(|a, b| {
            let ordering = order(&rows[*a], &rows[*b], now_ms);
            if descending {
                ordering.reverse()
            } else {
                ordering
            }
        });
        let found = self.chosen.as_ref().and_then(|id| {
            let at = |index: &usize| rows[*index].id() == id;
            self.order.iter().position(at)
        });
        match found {
            Some(position) => self.position = position,
            // It is gone: what took its place is chosen.
            None => self.choose(self.position),
        }
    }

    fn choose(&mut self, position: usize) {
        self.position = position.min(self.order.len().saturating_sub(1));
        self.chosen = self.row_at(self.position).map(|row| row.id().to_owned());
    }

    pub(super) fn move_by(&mut self, rows: isize) {
        self.choose(self.position.saturating_add_signed(rows));
    }

    pub(super) fn row_at(&self, position: usize) -> Option<&R> {
        self.order
            .get(position)
            .and_then(|index| self.rows.get(*index))
    }

    pub(super) fn chosen(&self) -> Option<&R> {
        self.row_at(self.position)
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Rows let through, and all.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.order.len(), self.rows.len())
    }

    pub(super) fn rows(&self) -> &[R] {
        &self.rows
    }

    /// The positions that a screen of `height` rows shows, the chosen one among them.
    pub(super) fn window(&mut self, height: usize) -> std::ops::Range<usize> {
        let last_top = self.order.len().saturating_sub(height);
        let least = (self.position + 1).saturating_sub(height);
        self.top = self
            .top
            .clamp(least, self.position.max(least))
            .min(last_top);
        self.top..self.order.len().min(self.top + height)
    }

    pub(super) fn sort_next(&mut self, steps: isize, now_ms: u64) {
        let count = R::all_columns().len();
        let next = self
            .sorted
            .saturating_add(count)
            .saturating_add_signed(steps)
            % count;
        self.sorted = next;
        self.descending = R::all_columns()[next].number;
        self.arrange(now_ms);
    }

    pub(super) fn reverse(&mut self, now_ms: u64) {
        self.descending = !self.descending;
        self.arrange(now_ms);
    }

    pub(super) fn filter(&self) -> &str {
        &self.filter
    }

    pub(super) fn set_filter(&mut self, filter: String, now_ms: u64) {
        if filter.len() <= FILTER_BYTES_MAX {
            self.filter = filter;
            self.arrange(now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Node;

    fn node(id: &str, containers: u32) -> Node {
        Node {
            id: id.to_owned(),
            containers,
            ..Node::from(bobbin_proto::v1::NodeReport::default())
        }
    }

    fn shown(table: &Table<Node>) -> String {
        let (count, _) = table.counts();
        let mark = |at: usize| if at == table.position() { "*" } else { "" };
        let row = |at: usize| format!("{}{}", table.row_at(at).unwrap().id, mark(at));
        (0..count).map(row).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_choice_follows_its_row() {
        let mut table = Table::default();
        assert!(!table.is_known && table.chosen().is_none());
        table.move_by(3);
        table.set_rows(vec![node("a", 1), node("c", 3), node("b", 2)], 0);
        assert_eq!(shown(&table), "a* b c");
        table.move_by(1);
        assert_eq!(shown(&table), "a b* c");
        table.set_rows(
            vec![node("b", 2), node("0", 9), node("c", 3), node("a", 1)],
            0,
        );
        assert_eq!(shown(&table), "0 a b* c");
        table.reverse(0);
        assert_eq!(shown(&table), "c b* a 0");
        table.sort_next(2, 0);
        assert_eq!(
            (shown(&table).as_str(), table.descending),
            ("0 c b* a", true)
        );
        table.set_rows(vec![node("c", 3), node("a", 1)], 0);
        assert_eq!(shown(&table), "c a*");
        table.set_rows(vec![], 0);
        assert_eq!((shown(&table).as_str(), table.is_known), ("", true));
        table.move_by(-5);
        table.set_rows(vec![node("z", 0)], 0);
        assert_eq!(shown(&table), "z*");
    }

    #[test]
    fn filters_let_through() {
        let mut table = Table::default();
        table.set_rows(vec![node("Alpha", 1), node("beta", 3), node("gamma", 2)], 0);
        table.set_filter("LPH".to_owned(), 0);
        assert_eq!(shown(&table), "Alpha*");
        table.set_filter("nothing".to_owned(), 0);
        assert_eq!(shown(&table), "");
        table.set_filter(String::new(), 0);
        assert_eq!(shown(&table), "Alpha* beta gamma");
        table.set_filter("x".repeat(10_000), 0);
        assert_eq!(table.filter(), "");
    }

    #[test]
    fn every_row_can_be_reached() {
        let mut table = Table::default();
        table.set_rows((0..1000).map(|n| node(&format!("n{n:04}"), 0)).collect(), 0);
        for height in [0, 1, 2, 20, 2000] {
            for step in [1, 7, -3, 5000, -1, -5000] {
                table.move_by(step);
                let window = table.window(height);
                assert!(window.len() <= height);
                assert!(
                    height == 0 || window.contains(&table.position()),
                    "{height} {step}"
                );
            }
        }
        assert_eq!(table.window(2000), 0..1000);
        table.move_by(5000);
        assert_eq!(table.window(10), 990..1000);
        table.move_by(-1);
        assert_eq!(table.window(10), 990..1000, "it scrolls only when it must");
        table.set_rows(vec![node("one", 0)], 0);
        assert_eq!(table.window(10), 0..1);
    }

    #[test]
    fn sorting_goes_round() {
        let mut table: Table<Node> = Table::default();
        let count = Node::all_columns().len();
        table.sort_next(-1, 0);
        assert_eq!(table.sorted, count - 1);
        table.sort_next(1, 0);
        assert_eq!(table.sorted, 0);
    }
}
