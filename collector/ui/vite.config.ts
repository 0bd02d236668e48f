import { resolve } from "node:path";
import { type Plugin, defineConfig } from "vite";

/** Where `npm run dev` finds a collector: the demo's default address. */
const COLLECTOR = process.env["WARD_COLLECTOR"] ?? "http://127.0.0.1:8080";

/** Names the script that opens the live feed before any other. */
const earlyFeed: Plugin = {
  name: "early-feed",
  transformIndexHtml: {
    order: "post",
    handler(_, { filename, bundle }) {
      if (!filename.endsWith("index.html")) return [];
      const built = Object.values(bundle ?? {}).find((file) => file.type === "chunk" && file.name === "early");
      return [{ tag: "script", attrs: { type: "module", async: true, src: built ? `/${built.fileName}` : "/src/feed/early.ts" }, injectTo: "head-prepend" }];
    },
  },
};

export default defineConfig({
  plugins: [earlyFeed],
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    target: "es2022",
    // The page's policy forbids what isn't a file of its own.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: { input: { index: resolve(__dirname, "index.html"), login: resolve(__dirname, "login.html"), early: resolve(__dirname, "src/feed/early.ts") } },
  },
  server: {
    proxy: Object.fromEntries(
      ["/api", "/ws", "/login", "/logout", "/setup"].map((path) => [path, { target: COLLECTOR, ws: path === "/ws" }]),
    ),
  },
});
