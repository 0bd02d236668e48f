import { resolve } from "node:path";
import { defineConfig } from "vite";

/** Where `npm run dev` finds a collector: the demo's default address. */
const COLLECTOR = process.env["WARD_COLLECTOR"] ?? "http://127.0.0.1:8080";

export default defineConfig({
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    target: "es2022",
    // The page's policy forbids what isn't a file of its own.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: { input: { index: resolve(__dirname, "index.html"), login: resolve(__dirname, "login.html") } },
  },
  server: {
    proxy: Object.fromEntries(
      ["/api", "/ws", "/login", "/logout", "/setup"].map((path) => [path, { target: COLLECTOR, ws: path === "/ws" }]),
    ),
  },
});
