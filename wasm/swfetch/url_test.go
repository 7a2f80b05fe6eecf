package swfetch

import "testing"

func TestSplitURL(t *testing.T) {
	for _, tt := range []struct {
		in, path, query string
		ok              bool
	}{
		{"http://localhost:8787/ipfs/bafkqaaa/a%20b?download=true#top", "/ipfs/bafkqaaa/a%20b", "download=true", true},
		{"https://site.example/ipfs/bafkqaaa/%zz", "/ipfs/bafkqaaa/%zz", "", true},
		{"https://site.example/ipfs/bafkqaaa/100%?filename=%", "/ipfs/bafkqaaa/100%", "filename=%", true},
		{"https://site.example/a//b/?x?y", "/a//b/", "x?y", true},
		{"https://site.example/a#b?c", "/a", "", true},
		{"https://site.example?q", "/", "q", true},
		{"https://site.example", "/", "", true},
		{"/ipfs/bafkqaaa", "", "", false},
		{"", "", "", false},
	} {
		if path, query, ok := splitURL(tt.in); path != tt.path || query != tt.query || ok != tt.ok {
			t.Errorf("splitURL(%q) = %q, %q, %t; want %q, %q, %t", tt.in, path, query, ok, tt.path, tt.query, tt.ok)
		}
	}
}
