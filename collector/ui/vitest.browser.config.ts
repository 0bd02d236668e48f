import { defineConfig } from "vitest/config";

/** Tests in a real browser against a real collector: each file has one of its own, and its tests share that one's story. */
export default defineConfig({
  test: { include: ["test/**/*.test.ts"], environment: "node", fileParallelism: true, maxWorkers: 2, minWorkers: 1, testTimeout: 120_000, hookTimeout: 60_000 },
});
