import { defineConfig } from "vitest/config";

/** Tests in a real browser against a real collector, one after the other: they share one story. */
export default defineConfig({
  test: { include: ["test/**/*.test.ts"], environment: "node", fileParallelism: false, testTimeout: 120_000, hookTimeout: 60_000 },
});
