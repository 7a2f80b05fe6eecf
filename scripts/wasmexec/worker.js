// Runs a Go test binary; wasmexec serves this beside it.
importScripts("/wasm_exec.js");

globalThis.newRTC = () => {
  const { port1, port2 } = new MessageChannel();
  postMessage(null, [port2]);
  return port1;
};

(async () => {
  const out = new WebSocket("ws://" + location.host + "/output");
  out.binaryType = "arraybuffer";
  await new Promise((ok, no) => { out.onopen = ok; out.onerror = () => no(new Error("no way to report")); });
  try {
    const setup = await (await fetch("/setup.json")).json();
    const go = new Go();
    go.argv = setup.argv;
    Object.assign(go.env, setup.env);
    let code = 0;
    go.exit = (c) => { code = c; };
    globalThis.fs.writeSync = (_fd, buf) => { out.send(buf.slice()); return buf.length; };
    const { instance } = await WebAssembly.instantiateStreaming(fetch("/test.wasm"), go.importObject);
    await go.run(instance);
    out.send(String(code));
  } catch (e) {
    out.send("worker: " + (e && e.stack || e));
  }
})();
