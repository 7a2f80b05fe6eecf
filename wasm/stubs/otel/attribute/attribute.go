// Package attribute makes the attributes of spans, which nothing reads in the
// tab: they are empty.
package attribute

import "fmt"

// A KeyValue holds nothing.
type KeyValue struct{}

func String(string, string) KeyValue         { return KeyValue{} }
func StringSlice(string, []string) KeyValue  { return KeyValue{} }
func Stringer(string, fmt.Stringer) KeyValue { return KeyValue{} }
func Int(string, int) KeyValue               { return KeyValue{} }
func Int64(string, int64) KeyValue           { return KeyValue{} }
func Bool(string, bool) KeyValue             { return KeyValue{} }
