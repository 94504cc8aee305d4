@echo off
rem Installs and builds what is missing or out of date, then starts l3cap.
rem   start.bat                  captures what config\default.json names, into .\vault
rem   start.bat demo             captures 30 s from a simulated exchange and shows the files; needs no network
rem   start.bat COMMAND ...      any l3cap command: start.bat rebuild --vault .\vault --out .\again
setlocal
set "here=%~dp0"

where node >nul 2>nul
if errorlevel 1 (
  echo l3cap needs Node.js 20.19 or newer, and there is no "node" here: install it from https://nodejs.org 1>&2
  exit /b 1
)
node -e "var v = process.versions.node.split('.'); process.exit(v[0] > 20 || (v[0] == 20 && v[1] >= 19) ? 0 : 1)"
if errorlevel 1 (
  echo l3cap needs Node.js 20.19 or newer: get a newer one from https://nodejs.org. This one is: 1>&2
  node --version 1>&2
  exit /b 1
)

rem What npm and tsc say goes to stderr: stdout belongs to the command.
pushd "%here%"
node -e "const {existsSync: is, statSync: of} = require('fs'), mark = 'node_modules/.package-lock.json'; process.exit(is(mark) && of(mark).mtimeMs >= of('package-lock.json').mtimeMs ? 0 : 1)"
if errorlevel 1 (
  echo Installing l3cap: npm ci 1>&2
  call npm ci --include=dev --no-audit --no-fund 1>&2
  if errorlevel 1 goto failed
)
node -e "const {existsSync: is, statSync: of, readdirSync: list} = require('fs'), mark = 'dist/cli.js'; process.exit(is(mark) && ['tsconfig.json', 'src', ...list('src', {recursive: true}).map(name => 'src/' + name)].every(path => of(mark).mtimeMs >= of(path).mtimeMs) ? 0 : 1)"
if errorlevel 1 (
  echo Building l3cap: npm run build 1>&2
  call npm run build 1>&2
  if errorlevel 1 goto failed
)
popd

if "%~1"=="" goto capture
if "%~1"=="demo" goto demo
node "%here%bin\l3cap.js" %*
exit /b %errorlevel%

:capture
node "%here%bin\l3cap.js" run --config "%here%config\default.json"
exit /b %errorlevel%

:demo
node "%here%bin\demo.js" %2
exit /b %errorlevel%

:failed
popd
exit /b 1
