// What Go's wasm_exec.js and Weft put on the worker's global object.
declare var weftHost: import("./types.js").Host;
declare var Go: new () => { importObject: WebAssembly.Imports; exit: (code: number) => void; _values: unknown[]; _idPool: number[]; run(instance: WebAssembly.Instance): Promise<void> };
