// Package e2e tests Weft as a visitor meets it: real pages in real headless
// Chromium, the real Service Worker and node, a real relay in the test process.
//
// The tests have the build tag e2e (`make e2e`), and soak for the long one.
// Each visitor is a browser context of its own: its worker, its IndexedDB, its
// identity. Tests wait for conditions and assert what a user could see, never
// how long it took. A page of ours that logs an error fails its test.
//
// Set E2E_WORKER_LOG=1 to see the workers' consoles (the attached debugger then
// keeps them alive), E2E_SCREENSHOT=FILE.png for a picture of index.html.
package e2e
