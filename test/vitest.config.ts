import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  root: fileURLToPath(new URL('..', import.meta.url)),
  test: {
    testTimeout: 20_000,
    hookTimeout: 20_000,
    projects: [
      {
        extends: true,
        test: {
          name: 'parts',
          include: ['test/**/*.test.ts'],
          exclude: ['test/faults/**'],
          // Many tests start programs of their own and measure time; more workers only make them wait for each other.
          maxWorkers: 2,
          sequence: { groupOrder: 0 }
        }
      },
      {
        extends: true,
        // Whole runs with faults in them: most of their time they wait.
        test: { name: 'faults', include: ['test/faults/*.test.ts'], maxWorkers: 4, sequence: { groupOrder: 1 } }
      }
    ]
  }
})
