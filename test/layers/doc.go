// Package layers holds the tests of the house itself: which package may import which, and the few rules of style
// that a mistake has consequences for. The tables in arrows_test.go and house_test.go are the rules; nothing else
// needs reading to change one.
//
// Vocabulary. A zone is a package, or a package with everything below it. An owner is a zone that alone may import
// a library. Test files are bound by one arrow only: the agents never import each other.
package layers
