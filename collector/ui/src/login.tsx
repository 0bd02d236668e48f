/** Signing in: by name and password, by a token, or as the first administrator. */
import { render } from "preact";
import { useState } from "preact/hooks";
import { LANGUAGE_NAMES, type Language, language } from "./words";
import { loginWords } from "./words/login";
import "./style.css";

function Login() {
  const words = loginWords[language.value];
  const [problem, setProblem] = useState(new URLSearchParams(location.search).get("failed") === "1" ? words.wrong : "");
  document.documentElement.lang = language.value;

  async function send(path: string, event: SubmitEvent) {
    event.preventDefault();
    const fields = Object.fromEntries(new FormData(event.currentTarget as HTMLFormElement));
    try {
      const answer = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(fields) });
      if (answer.ok) return location.assign("/");
      const said = (await answer.json().catch(() => null)) as { detail?: string } | null;
      setProblem(answer.status === 401 ? words.wrong : (said?.detail ?? `HTTP ${answer.status}`));
    } catch {
      setProblem(words.unreachable);
    }
  }

  return (
    <main class="login">
      <h1>ward</h1>
      {problem && <p class="problem" role="alert">{problem}</p>}
      <form onSubmit={(event) => void send("/login", event)}>
        <label for="name">{words.name}</label>
        <input id="name" name="name" required autocomplete="username" spellcheck={false} autofocus />
        <label for="password">{words.password}</label>
        <input id="password" name="password" type="password" required autocomplete="current-password" />
        <button>{words.signIn}</button>
      </form>
      <details>
        <summary>{words.byToken}</summary>
        <form method="post" action="/login">
          <label for="token">{words.token}</label>
          <input id="token" name="token" type="password" required autocomplete="off" spellcheck={false} aria-describedby="token-place" />
          <button>{words.signIn}</button>
          <p id="token-place" class="faint">{words.tokenPlace}</p>
        </form>
      </details>
      <details>
        <summary>{words.first}</summary>
        <form onSubmit={(event) => void send("/setup", event)}>
          <p class="faint">{words.codePlace}</p>
          <label for="code">{words.code}</label>
          <input id="code" name="code" required autocomplete="one-time-code" spellcheck={false} />
          <label for="new-name">{words.name}</label>
          <input id="new-name" name="name" required autocomplete="username" spellcheck={false} />
          <label for="new-password">{words.password}</label>
          <input id="new-password" name="password" type="password" required autocomplete="new-password" />
          <button>{words.makeAdmin}</button>
        </form>
      </details>
      <p>
        {(Object.keys(LANGUAGE_NAMES) as Language[]).map((name) => (
          <button key={name} type="button" class="choice" lang={name} aria-pressed={language.value === name} onClick={() => (language.value = name)}>{LANGUAGE_NAMES[name]}</button>
        ))}
      </p>
    </main>
  );
}

const theme = localStorage.getItem("ward.theme");
if (theme) document.documentElement.dataset["theme"] = theme;
render(<Login />, document.getElementById("page") as HTMLElement);
