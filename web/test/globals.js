// Node 18, which Debian 12 has, keeps WebCrypto in a module.
import { webcrypto } from "node:crypto";

globalThis.crypto ??= webcrypto;
