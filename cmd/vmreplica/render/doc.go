// Package render puts answers of the agents on paper: tables and pages of words for people, JSON and YAML for
// programs, and the progress of what is being waited for.
//
// Vocabulary. A table has a heading and a row for each thing; wide adds columns. A page is describe's: everything
// that is known, in words. JSON is protojson with default values emitted and the same bytes for the same message;
// YAML is that JSON written otherwise. Progress goes to a terminal as bars, elsewhere as lines.
//
// Invariants. Text from an agent cannot move the cursor: control characters are dropped from tables, pages and
// progress. Sizes are IEC, times in tables relative, on pages absolute with their zone. Colour is not used.
//
// Nothing is kept; there is nothing on disk.
package render
