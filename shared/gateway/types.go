package gateway

import (
	"mime"
	"net/http"
	"path"
	"strings"
)

// sniffBytes is how much http.DetectContentType looks at.
const sniffBytes = 512

// htmlType is without charset, as boxo's gateway has it: the document says
// its own, or the browser finds it.
const htmlType = "text/html"

// types is by extension: what the web is made of. It is ours, and not the
// system's, so that a file has one type on every node; the names are those of
// the IANA registry and of the WHATWG's MIME Sniffing standard.
var types = map[string]string{
	".html": htmlType, ".htm": htmlType,
	".xhtml": "application/xhtml+xml", ".xht": "application/xhtml+xml",
	".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8", ".cjs": "text/javascript; charset=utf-8",
	".json": "application/json", ".map": "application/json", ".jsonld": "application/ld+json", ".geojson": "application/geo+json",
	".webmanifest": "application/manifest+json", ".importmap": "application/importmap+json", ".ndjson": "application/x-ndjson",
	".wasm": "application/wasm",
	".css":  "text/css; charset=utf-8",
	".txt":  "text/plain; charset=utf-8", ".md": "text/markdown; charset=utf-8", ".csv": "text/csv; charset=utf-8",
	".ts": "text/plain; charset=utf-8", ".mts": "text/plain; charset=utf-8", ".tsx": "text/plain; charset=utf-8", ".jsx": "text/plain; charset=utf-8",
	".yaml": "application/yaml", ".yml": "application/yaml", ".toml": "application/toml", ".vtt": "text/vtt; charset=utf-8",
	".glsl": "text/plain; charset=utf-8", ".wgsl": "text/wgsl; charset=utf-8", ".frag": "text/plain; charset=utf-8", ".vert": "text/plain; charset=utf-8",
	".xml": "text/xml; charset=utf-8", ".xsl": "text/xsl; charset=utf-8", ".xslt": "application/xslt+xml", ".rss": "application/rss+xml", ".atom": "application/atom+xml",
	".svg": "image/svg+xml",
	".png": "image/png", ".apng": "image/apng", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif",
	".webp": "image/webp", ".avif": "image/avif", ".jxl": "image/jxl", ".bmp": "image/bmp", ".ico": "image/x-icon",
	".tif": "image/tiff", ".tiff": "image/tiff", ".heic": "image/heic", ".ktx2": "image/ktx2",
	".woff": "font/woff", ".woff2": "font/woff2", ".ttf": "font/ttf", ".otf": "font/otf", ".ttc": "font/collection",
	".eot": "application/vnd.ms-fontobject",
	".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm", ".ogv": "video/ogg", ".mov": "video/quicktime", ".mkv": "video/x-matroska",
	".m3u8": "application/vnd.apple.mpegurl", ".mpd": "application/dash+xml", ".m4s": "video/iso.segment",
	".mp3": "audio/mpeg", ".m4a": "audio/mp4", ".aac": "audio/aac", ".ogg": "audio/ogg", ".oga": "audio/ogg", ".opus": "audio/ogg",
	".flac": "audio/flac", ".wav": "audio/wav", ".weba": "audio/webm", ".mid": "audio/midi",
	".glb": "model/gltf-binary", ".gltf": "model/gltf+json", ".obj": "model/obj", ".stl": "model/stl",
	".pdf": "application/pdf", ".epub": "application/epub+zip", ".rtf": "application/rtf",
	".zip": "application/zip", ".gz": "application/gzip", ".tgz": "application/gzip", ".bz2": "application/x-bzip2", ".xz": "application/x-xz",
	".zst": "application/zstd", ".br": "application/octet-stream", ".tar": "application/x-tar", ".7z": "application/x-7z-compressed",
	".bin": "application/octet-stream", ".dat": "application/octet-stream", ".data": "application/octet-stream",
	".car": "application/vnd.ipld.car", ".mht": "multipart/related", ".mhtml": "multipart/related",
	".parquet": "application/vnd.apache.parquet", ".sqlite": "application/vnd.sqlite3",
	".onnx": "application/octet-stream", ".safetensors": "application/octet-stream", ".gguf": "application/octet-stream",
}

// byName is the type that name's extension has, or "".
func byName(name string) string { return types[strings.ToLower(path.Ext(name))] }

// ContentType is the type of a file: by its name's extension, else by its
// first 512 bytes as the MIME Sniffing standard has it. What sniffs as HTML is
// typed as HTML, so an owner's page needs no extension.
func ContentType(name string, first []byte) string {
	if t := byName(name); t != "" {
		return t
	}
	t := http.DetectContentType(first)
	if strings.HasPrefix(t, htmlType+";") {
		return htmlType
	}
	return t
}

// IsActiveDocument tells whether a browser that navigates to contentType may
// run what is in it, or show it as a document of the origin: HTML, XHTML, SVG
// and every other XML, PDF, and the multipart types that carry HTML. A type
// that does not parse is taken for active.
func IsActiveDocument(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return true
	}
	switch t {
	case htmlType, "text/xml", "application/xml", "text/xsl", "application/pdf",
		"multipart/related", "multipart/x-mixed-replace", "message/rfc822":
		return true
	}
	return strings.HasSuffix(t, "+xml")
}

// Disguises tells whether filename, which a request gives to a file called
// name, could make a document of what is none by its own name. An address must
// not do that: anyone can write one, and an owner's data would run as a page of
// the origin. Such a request is answered as for a root of someone else.
func Disguises(name, filename string) bool {
	own, asked := byName(name), byName(filename)
	switch {
	case filename == "" || asked == own:
		return false
	case own != "" && IsActiveDocument(own):
		return false // a document anyhow
	}
	return asked == "" || IsActiveDocument(asked) // without a type it is sniffed
}
