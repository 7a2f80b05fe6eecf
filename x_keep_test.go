//go:build depskeep

package weft
