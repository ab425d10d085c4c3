//! Where boxes go: in layers from top to bottom, so that edges lead downwards and cross little.
//!
//! The steps are Sugiyama's: layers by the longest way from the top, bends where an edge passes a layer, an order in each
//! layer by the middle of the neighbours', then places along the layer. Edges that would close a ring are taken the other
//! way round. Source: Gansner, Koutsofios, North, Vo: "A technique for drawing directed graphs" (1993).

/// Space between boxes of a layer.
const GAP: f64 = 28.0;
/// Space between layers, for edges and their labels.
const BETWEEN: f64 = 64.0;
/// Times that orders and places are bettered.
const ROUNDS: usize = 12;

/// A box, by its size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Size {
    pub width: f64,
    pub height: f64,
}

/// Where everything is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Laid {
    /// Middle of the top edge of each box.
    pub boxes: Vec<(f64, f64)>,
    /// For each edge the points that it passes, from the bottom of the upper box to the top of the lower one; an edge that
    /// was taken the other way round has them in its own direction.
    pub edges: Vec<Vec<(f64, f64)>>,
    /// Size of the whole.
    pub size: Size,
}

/// A box, or a bend of an edge on its way past a layer.
struct Item {
    layer: usize,
    width: f64,
    above: Vec<usize>,
    below: Vec<usize>,
    x: f64,
}

/// Lays out boxes with their edges. `last` are boxes that belong below all others.
pub(super) fn lay_out(sizes: &[Size], edges: &[(usize, usize)], last: &[bool]) -> Laid {
    let downwards = without_rings(sizes.len(), edges);
    let layers = layers(sizes.len(), &downwards, last);
    let mut items: Vec<Item> = layers
        .iter()
        .zip(sizes)
        .map(|(layer, size)| Item { layer: *layer, width: size.width, above: Vec::new(), below: Vec::new(), x: 0.0 })
        .collect();
    let ways: Vec<Vec<usize>> = downwards.iter().map(|(from, to)| way(&mut items, *from, *to)).collect();
    let mut rows = rows(&items);
    order(&mut rows, &items);
    place(&rows, &mut items);

    let heights = heights(&rows, sizes);
    let tops: Vec<f64> =
        heights.iter().scan(0.0, |top, height| Some(std::mem::replace(top, *top + height + BETWEEN))).collect();
    let left = items.iter().map(|item| item.x - item.width / 2.0).fold(f64::INFINITY, f64::min);
    let right = items.iter().map(|item| item.x + item.width / 2.0).fold(0.0, f64::max);
    let left = if left.is_finite() { left } else { 0.0 };
    let at = |item: usize| items[item].x - left;
    let boxes: Vec<(f64, f64)> = (0..sizes.len()).map(|one| (at(one), tops[items[one].layer])).collect();
    let edges = ways.iter().zip(edges).map(|(way, given)| {
        let mut points = Vec::new();
        for (step, item) in way.iter().enumerate() {
            let (x, layer) = (at(*item), items[*item].layer);
            let size = sizes.get(*item).filter(|_| *item < sizes.len());
            if step > 0 {
                points.push((x, tops[layer]));
            }
            if step + 1 < way.len() {
                points.push((x, tops[layer] + size.map_or(heights[layer], |size| size.height)));
            }
        }
        if way.first() != Some(&given.0) {
            points.reverse();
        }
        points
    });
    let edges = edges.collect();
    let height = tops.last().zip(heights.last()).map_or(0.0, |(top, height)| top + height);
    Laid { boxes, edges, size: Size { width: right - left, height } }
}

/// The edges, each from the upper box to the lower one: those that close a ring are turned round.
fn without_rings(count: usize, edges: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut kept: Vec<(usize, usize)> = Vec::new();
    edges
        .iter()
        .map(|(from, to)| {
            let edge = if reaches(count, &kept, *to, *from) { (*to, *from) } else { (*from, *to) };
            if edge.0 != edge.1 {
                kept.push(edge);
            }
            edge
        })
        .collect()
}

fn reaches(count: usize, edges: &[(usize, usize)], from: usize, to: usize) -> bool {
    let mut seen = vec![false; count];
    let mut queue = vec![from];
    while let Some(at) = queue.pop() {
        if at == to {
            return true;
        }
        if !std::mem::replace(&mut seen[at], true) {
            queue.extend(edges.iter().filter(|edge| edge.0 == at).map(|edge| edge.1));
        }
    }
    false
}

/// The layer of each box: below everything that leads to it.
fn layers(count: usize, edges: &[(usize, usize)], last: &[bool]) -> Vec<usize> {
    let mut layers = vec![0; count];
    for _ in 0..count {
        let mut changed = false;
        for (from, to) in edges.iter().filter(|(from, to)| from != to) {
            if layers[*to] <= layers[*from] {
                layers[*to] = layers[*from] + 1;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    let deepest = layers.iter().zip(last).filter(|(_, last)| !**last).map(|(layer, _)| layer + 1).max().unwrap_or(0);
    for (layer, _) in layers.iter_mut().zip(last).filter(|(_, last)| **last) {
        *layer = deepest;
    }
    layers
}

/// Connects two boxes, by a bend in each layer between them. Returns what the edge passes.
fn way(items: &mut Vec<Item>, from: usize, to: usize) -> Vec<usize> {
    let mut way = vec![from];
    if from == to {
        return way;
    }
    for layer in items[from].layer + 1..items[to].layer {
        items.push(Item { layer, width: 4.0, above: Vec::new(), below: Vec::new(), x: 0.0 });
        way.push(items.len() - 1);
    }
    way.push(to);
    for pair in way.windows(2) {
        items[pair[0]].below.push(pair[1]);
        items[pair[1]].above.push(pair[0]);
    }
    way
}

fn rows(items: &[Item]) -> Vec<Vec<usize>> {
    let count = items.iter().map(|item| item.layer + 1).max().unwrap_or(0);
    let mut rows = vec![Vec::new(); count];
    for (at, item) in items.iter().enumerate() {
        rows[item.layer].push(at);
    }
    rows
}

/// Orders each row by where its neighbours are, downwards and upwards by turns; the order with the fewest crossings stays.
fn order(rows: &mut Vec<Vec<usize>>, items: &[Item]) {
    let mut best = (crossings(rows, items), rows.clone());
    for round in 0..ROUNDS {
        let down = round % 2 == 0;
        let positions = |rows: &[Vec<usize>]| {
            let mut positions = vec![0_usize; items.len()];
            for row in rows {
                row.iter().enumerate().for_each(|(at, item)| positions[*item] = at);
            }
            positions
        };
        let count = rows.len();
        for step in 1..count {
            let row = if down { step } else { count - 1 - step };
            let known = positions(rows);
            let middle = |item: &usize| {
                let near = if down { &items[*item].above } else { &items[*item].below };
                let near =
                    if near.is_empty() { vec![known[*item]] } else { near.iter().map(|one| known[*one]).collect() };
                mean(near.into_iter().map(number))
            };
            rows[row].sort_by(|one, other| middle(one).total_cmp(&middle(other)));
        }
        let now = crossings(rows, items);
        if now < best.0 {
            best = (now, rows.clone());
        }
    }
    *rows = best.1;
}

fn crossings(rows: &[Vec<usize>], items: &[Item]) -> usize {
    rows.windows(2)
        .map(|pair| {
            let position = |item: usize| pair[1].iter().position(|one| *one == item).unwrap_or(0);
            let ends: Vec<(usize, usize)> = pair[0]
                .iter()
                .enumerate()
                .flat_map(|(at, item)| items[*item].below.iter().map(move |below| (at, *below)))
                .map(|(at, below)| (at, position(below)))
                .collect();
            let crosses = |(at, one): (usize, &(usize, usize))| {
                ends[at + 1..]
                    .iter()
                    .filter(|other| (other.0 > one.0 && other.1 < one.1) || (other.0 < one.0 && other.1 > one.1))
                    .count()
            };
            ends.iter().enumerate().map(crosses).sum::<usize>()
        })
        .sum()
}

/// Places the items of each row: first side by side, then nearer to the middle of their neighbours.
fn place(rows: &[Vec<usize>], items: &mut [Item]) {
    for row in rows {
        let mut x = 0.0;
        for item in row {
            let width = items[*item].width;
            items[*item].x = x + width / 2.0;
            x += width + GAP;
        }
    }
    for round in 0..ROUNDS {
        let order: Vec<&Vec<usize>> = if round % 2 == 0 { rows.iter().collect() } else { rows.iter().rev().collect() };
        for row in order {
            let wanted: Vec<f64> = row
                .iter()
                .map(|item| {
                    let near: Vec<f64> =
                        items[*item].above.iter().chain(&items[*item].below).map(|one| items[*one].x).collect();
                    if near.is_empty() { items[*item].x } else { mean(near.into_iter()) }
                })
                .collect();
            spread(row, &wanted, items);
        }
    }
}

/// Moves the items of a row to where they want to be, as far as they have room: the mean of pushing from both sides.
fn spread(row: &[usize], wanted: &[f64], items: &mut [Item]) {
    let room = |one: usize, other: usize, items: &[Item]| f64::midpoint(items[one].width, items[other].width) + GAP;
    let mut right = wanted.to_vec();
    for at in 1..row.len() {
        right[at] = right[at].max(right[at - 1] + room(row[at - 1], row[at], items));
    }
    let mut left = wanted.to_vec();
    for at in (0..row.len().saturating_sub(1)).rev() {
        left[at] = left[at].min(left[at + 1] - room(row[at], row[at + 1], items));
    }
    for (at, item) in row.iter().enumerate() {
        items[*item].x = f64::midpoint(left[at], right[at]);
    }
}

fn heights(rows: &[Vec<usize>], sizes: &[Size]) -> Vec<f64> {
    let height = |item: &usize| sizes.get(*item).map_or(0.0, |size| size.height);
    rows.iter().map(|row| row.iter().map(height).fold(0.0, f64::max)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a project has thousands of boxes at most")]
fn number(count: usize) -> f64 {
    count as f64
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = number(values.len().max(1));
    values.sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid(count: usize, edges: &[(usize, usize)]) -> Laid {
        let sizes = vec![Size { width: 100.0, height: 40.0 }; count];
        lay_out(&sizes, edges, &vec![false; count])
    }

    #[test]
    fn edges_lead_downwards_and_boxes_do_not_overlap() {
        let edges = [(0, 1), (0, 2), (1, 3), (2, 3), (0, 3), (4, 3), (5, 0)];
        let laid = laid(6, &edges);
        for (from, to) in edges {
            assert!(laid.boxes[from].1 < laid.boxes[to].1, "{from} above {to}: {laid:?}");
        }
        for one in 0..6 {
            for other in one + 1..6 {
                let apart = (laid.boxes[one].0 - laid.boxes[other].0).abs() >= 100.0;
                assert!(apart || (laid.boxes[one].1 - laid.boxes[other].1).abs() >= 40.0, "{one} {other}: {laid:?}");
            }
        }
        assert!(laid.boxes.iter().all(|(x, y)| *x >= 50.0 && *y >= 0.0 && *x <= laid.size.width - 50.0), "{laid:?}");
    }

    #[test]
    fn rings_and_loops_are_drawn_too() {
        let laid = laid(3, &[(0, 1), (1, 2), (2, 0), (1, 1)]);
        assert_eq!(laid.edges.len(), 4);
        let back = &laid.edges[2];
        assert!(back.first().expect("points").1 > back.last().expect("points").1, "upwards: {laid:?}");
    }

    #[test]
    fn nothing_has_a_size_of_nothing() {
        assert_eq!(laid(0, &[]).size, Size { width: 0.0, height: 0.0 });
    }
}
