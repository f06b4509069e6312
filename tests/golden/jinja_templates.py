"""Templates of our own that are built like those of well-known families: the same constructs, other words."""

TEMPLATES = {}

TEMPLATES["llama31"] = r"""{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The instructions come first, so they are taken out of the list. #}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set instructions = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set instructions = "" %}
{%- endif %}
{{- "<|head|>system<|/head|>\n\n" }}
{%- if builtin_tools is defined or tools is not none %}
    {{- "Environment: shell\n" }}
{%- endif %}
{%- if builtin_tools is defined %}
    {{- "Builtin: " + builtin_tools | reject('equalto', 'interpreter') | join(", ") + "\n\n"}}
{%- endif %}
{{- "Knowledge until: December 2023\n" }}
{{- "Date: " + date_string + "\n\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {{- "Functions that may be called:\n\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
{%- endif %}
{{- instructions }}
{{- "<|eot|>" }}

{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Functions need a first user message to stand in!") }}
    {%- endif %}
    {{- '<|head|>user<|/head|>\n\n' -}}
    {{- "Answer with a call of one of these functions.\n\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot|>"}}
{%- endif %}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|head|>' + message['role'] + '<|/head|>\n\n'+ message['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("One call at a time!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {%- if builtin_tools is defined and tool_call.name in builtin_tools %}
            {{- '<|head|>assistant<|/head|>\n\n' -}}
            {{- "<|code|>" + tool_call.name + ".call(" }}
            {%- for arg_name, arg_val in tool_call.arguments | items %}
                {{- arg_name + '="' + arg_val + '"' }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- endif %}
                {%- endfor %}
            {{- ")" }}
        {%- else  %}
            {{- '<|head|>assistant<|/head|>\n\n' -}}
            {{- '{"name": "' + tool_call.name + '", ' }}
            {{- '"parameters": ' }}
            {{- tool_call.arguments | tojson }}
            {{- "}" }}
        {%- endif %}
        {%- if builtin_tools is defined %}
            {{- "<|eom|>" }}
        {%- else %}
            {{- "<|eot|>" }}
        {%- endif %}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|head|>ipython<|/head|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|/head|>\n\n' }}
{%- endif %}
"""

TEMPLATES["llama32_vision"] = r"""{{- bos_token }}
{%- if strftime_now is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- else %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- set image_ns = namespace(has_images=false) %}
{%- for message in messages %}
    {%- for content in message['content'] %}
        {%- if content['type'] == 'image' %}
            {%- set image_ns.has_images = true %}
        {%- endif %}
    {%- endfor %}
{%- endfor %}
{%- if not image_ns.has_images %}
<|head|>system<|/head|>

Today is {{ date_string }}.<|eot|>
{%- endif %}
{%- for message in messages %}
    {{- '<|head|>' + message['role'] + '<|/head|>\n\n' }}
    {%- if message['content'] is string %}
        {{- message['content'] }}
    {%- else %}
        {%- for content in message['content'] %}
            {%- if content['type'] == 'image' %}
                {{- '<|image|>' }}
            {%- elif content['type'] == 'text' %}
                {{- content['text'] }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|eot|>' }}
{%- endfor %}
"""

TEMPLATES["llama33_tools"] = r"""{%- macro call_text(call) -%}
{"name": {{ call.name | tojson }}, "parameters": {{ call.arguments if call.arguments is string else call.arguments | tojson }}}
{%- endmacro -%}
{%- set ns = namespace(n_call=0) -%}
{{ bos_token }}{% for m in messages %}
{%- if m.role == 'assistant' and m.tool_calls is defined and m.tool_calls -%}
<|assistant|>
{% for c in m.tool_calls %}{% set ns.n_call = ns.n_call + 1 %}{{ call_text(c.function) }}
{% endfor %}<|eom|>
{%- else -%}
<|{{ m.role }}|>
{{ m.content | trim }}<|eot|>
{%- endif -%}
{% endfor %}{% if ns.n_call %}<!-- {{ ns.n_call }} -->{% endif %}{% if add_generation_prompt %}<|assistant|>
{% endif %}"""

TEMPLATES["qwen3"] = r"""{%- if tools %}
    {{- '<|begin|>system\n' }}
    {%- if messages and messages[0].role == 'system' %}
        {{- messages[0].content + '\n\n' }}
    {%- endif %}
    {{- "# Functions\n\nSignatures in <tools></tools>:\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools>\n\nCall like this:\n<tool_call>\n{\"name\": <name>, \"arguments\": <args>}\n</tool_call><|end|>\n" }}
{%- else %}
    {%- if messages and messages[0].role == 'system' %}
        {{- '<|begin|>system\n' + messages[0].content + '<|end|>\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|begin|>' + message.role + '\n' + content + '<|end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|begin|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
            {%- else %}
                {{- '<|begin|>' + message.role + '\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|begin|>' + message.role + '\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|begin|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|begin|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}"""

TEMPLATES["qwen_training"] = r"""{% for message in messages %}
{% if message.role == 'assistant' %}<|begin|>assistant
{% generation %}{{ message.content }}<|end|>{% endgeneration %}

{% else %}<|begin|>{{ message.role }}
{{ message.content }}<|end|>
{% endif %}
{% endfor %}
{% if add_generation_prompt %}<|begin|>assistant
{% endif %}"""

TEMPLATES["qwen_coder"] = r"""{% macro keys_of(item, skip=[]) %}
{%- for k in item | dictsort if k[0] not in skip %}
{{ '\n<' ~ k[0] ~ '>' }}
{%- if k[1] is mapping or (k[1] is sequence and k[1] is not string) %}{{ k[1] | tojson | safe }}{% else %}{{ k[1] | string }}{% endif %}
{{- '</' ~ k[0] ~ '>' -}}
{%- endfor %}
{%- endmacro %}
{% if messages and messages[0]["role"] == "system" %}
    {%- set first = messages[0]["content"] %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set rest = messages %}
{%- endif %}
{% if not tools is defined %}{% set tools = [] %}{% endif %}
{%- if first is defined %}
    {{- "<|begin|>system\n" + first }}
{%- elif tools is iterable and tools | length > 0 %}
    {{- "<|begin|>system\nHelpful." }}
{%- endif %}
{%- if tools is iterable and tools | length > 0 %}
    {{- "\n\n# Functions" }}
    {%- for tool in tools %}
        {%- if tool.function is defined %}{%- set tool = tool.function %}{%- endif %}
        {{- "\n<function>\n<name>" ~ tool.name ~ "</name>" }}
        {%- if tool.description is defined %}{{- '\n<description>' ~ (tool.description | trim) ~ '</description>' }}{%- endif %}
        {%- if tool.parameters is mapping and tool.parameters.properties is defined %}
            {%- for name, fields in tool.parameters.properties | items %}
                {{- '\n<parameter>\n<name>' ~ name ~ '</name>' }}
                {{- keys_of(fields, ['name', 'type']) }}
                {{- '\n</parameter>' }}
            {%- endfor %}
        {%- endif %}
        {{- "\n</function>" }}
    {%- endfor %}
{%- endif %}
{%- if first is defined or tools %}{{- '<|end|>\n' }}{%- endif %}
{%- for m in rest %}
    {%- if m.role == "tool" %}
        {%- if loop.previtem and loop.previtem.role != "tool" %}{{- '<|begin|>user\n' }}{%- endif %}
        {{- '<r>' ~ m.content ~ '</r>' }}
        {%- if not loop.last and loop.nextitem.role != "tool" %}{{- '<|end|>\n' }}{%- elif loop.last %}{{- '<|end|>\n' }}{%- endif %}
    {%- else %}
        {{- '<|begin|>' + m.role + '\n' + (m.content if m.content is string else '') + '<|end|>' + '\n' }}
    {%- endif %}
{%- endfor %}"""

TEMPLATES["deepseek_v3"] = r"""{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='', is_first_sp=true) %}{%- for message in messages %}{%- if message['role'] == 'system' %}{%- if ns.is_first_sp %}{% set ns.system_prompt = ns.system_prompt + message['content'] %}{% set ns.is_first_sp = false %}{%- else %}{% set ns.system_prompt = ns.system_prompt + '\n\n' + message['content'] %}{%- endif %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system_prompt }}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<|U|>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and 'tool_calls' in message %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls'] %}{%- if not ns.is_first %}{{'<|A|><|calls|>' + tool['type'] + '<|sep|>' + tool['function']['name'] + '\n' + '```json' + '\n' + tool['function']['arguments']|string + '\n' + '```'}}{%- set ns.is_first = true -%}{%- else %}{{'\n' + tool['type'] + '<|sep|>' + tool['function']['name']}}{%- endif %}{%- endfor %}{%- endif %}{%- if message['role'] == 'assistant' and 'tool_calls' not in message %}{%- if ns.is_tool %}{{'<|/out|>' + message['content'] + eos_token}}{%- set ns.is_tool = false -%}{%- else %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<|A|>' + content + eos_token}}{%- endif %}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}{{'<|out|>' + message['content']}}{%- set ns.is_output_first = false %}{%- else %}{{'\n<|out|>' + message['content']}}{%- endif %}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{'<|/out|>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<|A|>'}}{% endif %}"""

TEMPLATES["deepseek_r1_distill"] = r"""{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(system='') %}{% for m in messages if m.role == 'system' %}{% set ns.system = m.content %}{% endfor %}{{ bos_token ~ ns.system }}{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}<U>{{ m.content }}{% elif m.role == 'assistant' %}{% if m.content is not none %}{% set c = m.content %}{% if '</think>' in c %}{% set c = c.split('</think>') | last %}{% endif %}<A>{{ c }}{{ eos_token }}{% endif %}{% endif %}{% endfor %}{% if add_generation_prompt %}<A><think>
{% endif %}"""

TEMPLATES["deepseek_v2"] = r"""{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '

' }}{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}{% elif message['role'] == 'system' %}{{ message['content'] + '

' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"""

TEMPLATES["mistral_v1_loop_messages"] = r"""{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After the system message, roles take turns: user, assistant, user, ...') }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.first and system_message is defined %}
            {{- " [I] " + system_message + "\n\n" + message["content"] + " [/I]" }}
        {%- else %}
            {{- " [I] " + message["content"] + " [/I]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles, besides a first system message!") }}
    {%- endif %}
{%- endfor %}
"""

TEMPLATES["mistral_v3_tools"] = r"""{%- if messages and messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}

{#- Turns are counted without calls and results. #}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("Roles must take turns") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[T] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/T]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[I] " + system_message + "\n\n" + message["content"] + "[/I]" }}
        {%- else %}
            {{- "[I] " + message["content"] + "[/I]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[C] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Ids of calls have nine characters!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[R] {"content": ' + content|string + "}[/R]" }}
    {%- else %}
        {{- raise_exception("Only some roles are known!") }}
    {%- endif %}
{%- endfor %}
"""

TEMPLATES["mistral_v7_system"] = r"""{%- set default_system = 'Be useful.\nToday: ' + strftime_now('%Y-%m-%d') + '.' %}
{{- bos_token }}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- if messages[0]['content'] is string %}
        {%- set system_message = messages[0]['content'] %}
    {%- else %}
        {%- set system_message = messages[0]['content'][0]['text'] %}
    {%- endif %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set system_message = default_system %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- '[SYS]' + system_message + '[/SYS]' }}
{%- for message in loop_messages %}
    {%- if message['role'] == 'user' %}
        {%- if message['content'] is string %}
            {{- '[I]' + message['content'] + '[/I]' }}
        {%- else %}
            {{- '[I]' }}
            {%- for block in message['content'] %}
                {%- if block['type'] == 'text' %}
                    {{- block['text'] }}
                {%- elif block['type'] in ['image', 'image_url'] %}
                    {{- '[IMG]' }}
                {%- else %}
                    {{- raise_exception('Only text and images can be shown!') }}
                {%- endif %}
            {%- endfor %}
            {{- '[/I]' }}
        {%- endif %}
    {%- elif message['role'] == 'assistant' %}
        {{- message['content'] if message['content'] is string else message['content'][0]['text'] }}{{ eos_token }}
    {%- else %}
        {{- raise_exception('Unknown role: ' ~ message['role']) }}
    {%- endif %}
{%- endfor %}"""

TEMPLATES["mistral_nemo"] = r"""{%- if messages[0].role == "system" %}{%- set system_message = messages[0].content %}{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}
{%- set last_user = loop_messages | selectattr('role', 'eq', 'user') | map(attribute='content') | list | last %}
{%- for message in loop_messages | rejectattr("role", "equalto", "tool") %}
{%- if loop.first %}{{ bos_token }}{% endif %}
{%- if message.role == "user" -%}
[I]{% if system_message is defined and message.content == last_user %}{{ system_message ~ "\n\n" }}{% endif %}{{ message.content }}[/I]
{%- else -%}
{{ " " ~ message.content ~ eos_token }}
{%- endif %}
{%- else %}
{{- "nothing" }}
{%- endfor %}"""

TEMPLATES["smollm3"] = r"""{#- defaults #}
{%- if enable_thinking is not defined -%}
{%- set enable_thinking = true -%}
{%- endif -%}
{%- if enable_thinking -%}
  {%- set reasoning_mode = "/think" -%}
{%- else -%}
  {%- set reasoning_mode = "/no_think" -%}
{%- endif -%}
{{- "<|begin|>system\n" -}}
{%- if messages and messages[0].role == "system" -%}
  {%- set system_message = messages[0].content -%}
  {%- if "/no_think" in system_message -%}
    {%- set reasoning_mode = "/no_think" -%}
  {%- elif "/think" in system_message -%}
    {%- set reasoning_mode = "/think" -%}
  {%- endif -%}
  {%- set custom_instructions = system_message.replace("/no_think", "").replace("/think", "").rstrip() -%}
{%- endif -%}
{{- "## Facts\n\n" -}}
{%- set today = strftime_now("%d %B %Y") -%}
{{- "Today: " ~ today ~ "\n" -}}
{{- "Mode: " + reasoning_mode + "\n\n" -}}
{%- if custom_instructions -%}
  {{- custom_instructions + "\n\n" -}}
{%- endif -%}
{%- if xml_tools or python_tools -%}
  {{- "### Functions\n\n" -}}
  {%- if xml_tools -%}
    {%- set ns = namespace(xml_tool_string="Signatures:\n\n<tools>\n") -%}
    {%- for tool in xml_tools[:] -%}
      {%- set ns.xml_tool_string = ns.xml_tool_string ~ (tool | string) ~ "\n" -%}
    {%- endfor -%}
    {{- ns.xml_tool_string + "</tools>\n\n" -}}
  {%- endif -%}
{%- endif -%}
{{- "<|end|>\n" -}}
{%- for message in messages -%}
    {%- set content = message.content if message.content is string else "" -%}
    {%- if message.role == "user" -%}
        {{ "<|begin|>" + message.role + "\n"  + content + "<|end|>\n" }}
    {%- elif message.role == "assistant" -%}
        {% generation %}
        {%- if reasoning_mode == "/think" -%}
            {{ "<|begin|>assistant\n" + content.lstrip("\n") + "<|end|>\n" }}
        {%- else -%}
            {{ "<|begin|>assistant\n" + "<think>\n\n</think>\n" + content.lstrip("\n") + "<|end|>\n" }}
        {%- endif -%}
        {% endgeneration %}
    {%- elif message.role == "tool" -%}
    {{ "<|begin|>" + "user\n"  + content + "<|end|>\n" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {%- if reasoning_mode == "/think" -%}
        {{ "<|begin|>assistant\n" }}
    {%- else -%}
        {{ "<|begin|>assistant\n" + "<think>\n\n</think>\n"  }}
    {%- endif -%}
{%- endif -%}"""

TEMPLATES["gemma2"] = r"""{{ bos_token }}{% if messages and messages[0]['role'] == 'system' %}{{ raise_exception('No system role here') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must take turns') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<turn>' + role + '
' + message['content'] | trim + '</turn>
' }}{% endfor %}{% if add_generation_prompt %}{{'<turn>model
'}}{% endif %}"""

TEMPLATES["gemma3"] = r"""{{ bos_token }}
{%- if messages and messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Roles must take turns") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<img>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Unknown content") }}
    {%- endif -%}
    {{ '</turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<turn>model
'}}
{%- endif -%}
"""

TEMPLATES["phi3_loop"] = r"""{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|s|>
' + message['content'] + '<|x|>
'}}{% elif message['role'] == 'user' %}{{'<|u|>
' + message['content'] + '<|x|>
'}}{% elif message['role'] == 'assistant' %}{{'<|a|>
' + message['content'] + '<|x|>
'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|a|>
' }}{% else %}{{ eos_token }}{% endif %}"""

TEMPLATES["phi4_mini"] = r"""{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|x|>' }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|x|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"""

TEMPLATES["phi4_sep"] = r"""{%- set sep = joiner('<|im_sep|>') -%}
{%- for (message) in messages -%}
{{ '<|start|>' ~ message.role ~ '<|im_sep|>' ~ message.content ~ '<|stop|>' }}{{ sep() if false }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|start|>assistant<|im_sep|>' }}{%- endif -%}"""

TEMPLATES["command_r"] = r"""{% macro document_turn(documents) -%}
{# documents are numbered #}
{%- for doc in documents %}
Document: {{ loop.index0 }}
{% for key, value in doc.items() %}
{{ key }}: {{ value }}
{% endfor %}
{% endfor %}
{%- endmacro %}
{%- macro json_type(spec) -%}
{%- set types = {"string": "str", "number": "float", "integer": "int", "boolean": "bool"} -%}
{%- if spec.type in types -%}{{ types[spec.type] }}
{%- elif spec.type == "array" -%}List[{{ json_type(spec["items"]) if "items" in spec else "Any" }}]
{%- elif spec.type == "object" -%}Dict[str, {{ json_type(spec.additionalProperties) if spec.additionalProperties is mapping else "Any" }}]
{%- elif spec.type is iterable and spec.type is not string -%}Union[{% for t in spec.type %}{{ json_type({"type": t}) }}{{ ", " if not loop.last }}{% endfor %}]
{%- else -%}Any{%- endif -%}
{%- endmacro -%}
{{ bos_token }}{% if messages and messages[0].role == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0].content %}{% else %}{% set loop_messages = messages %}{% set system_message = 'You are Command.' %}{% endif -%}
<|SYS|>{{ system_message }}
{%- if documents %}

{{ document_turn(documents) }}
{%- endif %}
{%- if tools %}
{% for tool in tools %}
{%- set f = tool.function or tool %}
def {{ f.name }}(
{%- for name, spec in (f.parameters.properties or {}) | items -%}
{{ name }}: {{ json_type(spec) }}{% if name not in (f.parameters.required or []) %} = None{% endif %}{{ ", " if not loop.last }}
{%- endfor -%}
):
    # {{ f.description | default("", true) | replace("\n", "\n    ") }}
{% endfor %}
{%- endif -%}
<|END|>
{%- for message in loop_messages -%}
{%- set role = {'user': 'USER', 'assistant': 'CHATBOT', 'tool': 'SYSTEM'}[message.role] -%}
{{ '<|' ~ role ~ '|>' ~ message.content ~ '<|END|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|CHATBOT|>' }}{%- endif %}"""

TEMPLATES["granite31"] = r"""{%- if messages and messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set system_message = "Knowledge until April 2024.\nToday is " + strftime_now('%B %d, %Y') + "." %}
    {%- if tools and documents %}
        {%- set system_message = system_message + " Functions and documents." %}
    {%- elif tools %}
        {%- set system_message = system_message + " Functions." %}
    {%- elif documents %}
        {%- set system_message = system_message + " Documents." %}
    {%- endif %}
    {%- if controls and 'citations' in controls %}
        {%- set system_message = system_message + ' Cite with <co>.' %}
    {%- endif %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- '<|r|>system<|/r|>' + system_message + '<|x|>\n' }}
{%- if tools %}
    {{- '<|r|>tools<|/r|>' }}
    {{- tools | tojson(indent=4) }}
    {{- '<|x|>\n' }}
{%- endif %}
{%- if documents %}
    {{- '<|r|>documents<|/r|>' }}
    {%- for document in documents %}
        {{- 'Document ' + loop.index | string + '\n' }}
        {{- document['text'] }}
        {%- if not loop.last %}
            {{- '\n\n'}}
        {%- endif%}
    {%- endfor %}
    {{- '<|x|>\n' }}
{%- endif %}
{%- for message in loop_messages %}
    {{- '<|r|>' + message['role'] + '<|/r|>' + message['content'] | string + '<|x|>\n' }}
    {%- if loop.last and add_generation_prompt %}
        {{- '<|r|>assistant' }}
        {%- if controls %}
            {{- ' ' + controls | tojson()}}
        {%- endif %}
        {{- '<|/r|>' }}
    {%- endif %}
{%- endfor %}"""

TEMPLATES["yi"] = r"""{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% if messages and messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content'] %}{% endif %}{% if system_message is defined %}{{ system_message }}{% endif %}{% for message in messages %}{% set content = message['content'] %}{% if message['role'] == 'user' %}{{ '<|b|>user\n' + content + '<|e|>\n<|b|>assistant\n' }}{% elif message['role'] == 'assistant' %}{{ content + '<|e|>' + '\n' }}{% endif %}{% endfor %}"""

TEMPLATES["zephyr_lines"] = r"""{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

TEMPLATES["vicuna_plain"] = r"""{% if messages and messages[0].role == 'system' %}{{ messages[0].content ~ ' ' }}{% set messages = messages[1:] %}{% else %}A curious user talks with an assistant. {% endif %}{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content | trim }} {% elif m.role == 'assistant' %}ASSISTANT: {{ m.content | trim }}{{ eos_token }}{% else %}{{ raise_exception('role ' + m.role) }}{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"""

TEMPLATES["olmo"] = r"""{{ eos_token }}{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

TEMPLATES["olmo2_generation"] = r"""{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ '<|system|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'assistant' %}{{ '<|assistant|>\n' }}{% generation %}{% if not loop.last %}{{ message['content'] + eos_token + '\n' }}{% else %}{{ message['content'] + eos_token }}{% endif %}{% endgeneration %}{% endif %}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"""

TEMPLATES["hermes_tools"] = r"""{%- macro json_to_python_type(json_spec) %}
{%- set basic_type_map = {
    "string": "str",
    "number": "float",
    "integer": "int",
    "boolean": "bool"
} %}

{%- if basic_type_map[json_spec.type] is defined %}
    {{- basic_type_map[json_spec.type] }}
{%- elif json_spec.type == "array" %}
    {{- "list[" +  json_to_python_type(json_spec['items']) + "]"}}
{%- elif json_spec.type == "object" %}
    {%- if json_spec.additionalProperties is defined %}
        {{- "dict[str, " + json_to_python_type(json_spec.additionalProperties) + ']'}}
    {%- else %}
        {{- "dict" }}
    {%- endif %}
{%- elif json_spec.type is iterable %}
    {{- "Union[" }}
    {%- for t in json_spec.type %}
      {{- json_to_python_type({"type": t}) }}
      {%- if not loop.last %}
        {{- "," }}
    {%- endif %}
    {%- endfor %}
    {{- "]" }}
{%- else %}
    {{- "Any" }}
{%- endif %}
{%- endmacro %}

{{- bos_token }}
{{- '<|b|>system\n' }}
{{- "Signatures in <tools></tools>: <tools> " }}
{%- for tool in tools or [] %}
    {%- if tool.function is defined %}
        {%- set tool = tool.function %}
    {%- endif %}
    {{- '{"type": "function", "function": ' }}
    {{- '{"name": "' + tool.name + '", ' }}
    {{- '"description": "' + tool.name + '(' }}
    {%- for param_name, param_fields in tool.parameters.properties|items %}
        {{- param_name + ": " + json_to_python_type(param_fields) }}
        {%- if not loop.last %}
            {{- ", " }}
        {%- endif %}
    {%- endfor %}
    {{- ")" }}
    {%- if tool.return is defined %}
        {{- " -> " + json_to_python_type(tool.return) }}
    {%- endif %}
    {{- " - " + tool.description + "\n\n" }}
    {%- for param_name, param_fields in tool.parameters.properties|items %}
        {%- if loop.first %}
            {{- "    Args:\n" }}
        {%- endif %}
        {{- "        " + param_name + "(" + json_to_python_type(param_fields) + "): " + (param_fields.description|trim) }}
    {%- endfor %}
    {{- '", "parameters": ' }}
    {%- if tool.parameters.properties | length == 0 %}
        {{- "{}" }}
    {%- else %}
        {{- tool.parameters|tojson }}
    {%- endif %}
    {{- "}" }}
    {%- if not loop.last %}
        {{- "\n" }}
    {%- endif %}
{%- endfor %}
{{- " </tools>" }}
{{- "<|e|>\n" }}
{%- for message in messages %}
    {%- if message.role == "user" or message.role == "system" or (message.role == "assistant" and message.tool_calls is not defined) %}
        {{- '<|b|>' + message.role + '\n' + message.content + '<|e|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|b|>' + message.role }}
    {%- for tool_call in message.tool_calls %}
       {{- '\n<tool_call>\n' }}
           {%- if tool_call.function is defined %}
             {%- set tool_call = tool_call.function %}
           {%- endif %}
            {{- '{' }}
            {{- '"name": "' }}
            {{- tool_call.name }}
            {{- '"' }}
            {{- ', '}}
            {%- if tool_call.arguments is defined %}
                {{- '"arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments|tojson }}
                {%- endif %}
            {%- endif %}
            {{- '}' }}
            {{- '\n</tool_call>' }}
    {%- endfor %}
        {{- '<|e|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.previtem and loop.previtem.role != "tool" %}
            {{- '<|b|>tool\n' }}
        {%- endif %}
        {{- '<tool_response>\n' }}
        {{- message.content }}
        {%- if not loop.last %}
            {{- '\n</tool_response>\n' }}
        {%- else %}
            {{- '\n</tool_response>' }}
        {%- endif %}
        {%- if not loop.last and loop.nextitem.role != "tool" %}
            {{- '<|e|>' }}
        {%- elif loop.last %}
            {{- '<|e|>' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|b|>assistant\n' }}
{%- endif %}
"""

TEMPLATES["functionary"] = r"""{%- macro append_new_param_info(param_declaration, comment_info, examples_info, depth) -%}
    {%- set offset = "" -%}
    {%- if depth >= 1 -%}
        {%- set offset = "    " * depth -%}
    {%- endif -%}
    {%- if comment_info != "<|NONE|>" -%}
        {{ "\n" + offset + comment_info }}
        {%- if examples_info | length > 0 -%}
            {%- for example in examples_info -%}
                {{ "\n" + offset + "// " + example|string|replace("'", '"') }}
            {%- endfor -%}
        {%- endif -%}
    {%- endif -%}
    {{ "\n" + offset + param_declaration }}
{%- endmacro -%}
{%- macro get_param_type(param) -%}
    {%- set param_type = "any" -%}
    {%- if "type" in param -%}
        {%- set raw_param_type = param["type"] -%}
        {%- if raw_param_type is iterable and raw_param_type is not string -%}
            {%- set param_type = raw_param_type | join(" | ") -%}
        {%- else -%}
            {%- set param_type = raw_param_type -%}
        {%- endif -%}
        {{ param_type | replace("integer", "number") }}
    {%- elif "oneOf" in param -%}
        {%- set one_of_types = param["oneOf"]|selectattr("type", "defined")|list -%}
        {%- set one_of_types = one_of_types|map(attribute="type")|unique|list -%}
        {{ one_of_types|join(" | ") }}
    {%- endif -%}
{%- endmacro -%}
{%- macro get_param_info(param) -%}
    {%- set param_type = param.get("type", "any") -%}
    {%- set info_list = [] -%}
    {%- set desc = param.get("description", "") -%}
    {%- if desc -%}{%- set desc = (desc if desc.endswith(".") else desc + ".") -%}{%- endif -%}
    {%- set info_list = [desc] + (["Default=" + param.default | tojson] if "default" in param else []) -%}
    {%- for option in ["format", "minimum", "maximum"] -%}
        {%- if option in param -%}{{ option ~ "=" ~ param[option] ~ "; " }}{%- endif -%}
    {%- endfor -%}
    {%- if info_list | select | list -%}{{ "// " ~ info_list | select | join(" ") }}{%- else -%}{{ "<|NONE|>" }}{%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
<|h|>{{ message.role }}<|/h|>

{{ message.content if message.content else "" }}<|x|>
{%- endfor -%}
namespace functions {
{%- for tool in tools or [] %}
{%- set f = tool.function %}
// {{ f.description }}
type {{ f.name }} = (_: {
{%- for name, param in f.parameters.properties.items() -%}
{{ append_new_param_info(name ~ ("" if name in f.parameters.get("required", []) else "?") ~ ": " ~ get_param_type(param) ~ ",", get_param_info(param), param.examples | default([]), 1) }}
{%- endfor %}
}) => any;
{% endfor %}
}"""

TEMPLATES["chatqa"] = r"""{{ bos_token }}{%- for message in messages -%}{{ message['role'] | title }}: {{ message['content'] }}{{ "\n\n" }}{%- endfor -%}{%- if add_generation_prompt -%}Assistant:{%- endif -%}"""

TEMPLATES["internlm"] = r"""{{ bos_token }}{% for message in messages %}{{'<|s|>' + message['role'] + '
' + message['content'] + '<|e|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|s|>assistant
' }}{% endif %}"""

TEMPLATES["falcon3"] = r"""{%- if tools %}
{{- '<|system|>\n' }}
{%- if messages and messages[0]['role'] == 'system' %}
{{- messages[0]['content'] }}
{%- set remaining_messages = messages[1:] %}
{%- else %}
{%- set remaining_messages = messages %}
{%- endif %}
{{- 'Tools:\n' + tools|tojson(indent=2) + '\n' }}
{%- else %}
{%- set remaining_messages = messages %}
{%- endif %}
{%- for message in remaining_messages %}
{%- if message['role'] in ['system', 'user'] %}
{{- '<|' ~ message['role'] ~ '|>\n' + message['content'] + '\n' }}
{%- elif message['role'] == 'assistant' %}
{%- if not loop.last %}
{{- '<|assistant|>\n' + message['content'] + eos_token + '\n' }}
{%- else %}
{{- '<|assistant|>\n' + message['content'] + eos_token }}
{%- endif %}
{%- endif %}
{%- if loop.last and add_generation_prompt %}
{{- '<|assistant|>\n' }}
{%- endif %}
{%- endfor %}"""

TEMPLATES["stablelm"] = r"""{% for message in messages %}{% if loop.index0 == 0 and message.role == 'system' %}{% set message = {'role': 'system', 'content': message.content | upper} %}{% endif %}{{ '<|' + message.role + '|>
' + message.content + '<|endoftext|>
' }}{% endfor %}{{ '<|assistant|>
' if add_generation_prompt }}"""

TEMPLATES["exaone"] = r"""{% for message in messages %}{% if loop.first and message['role'] != 'system' %}{{ '[|system|][|endofturn|]\n' }}{% endif %}{{ '[|' + message['role'] + '|]' + message['content'] }}{% if message['role'] == 'user' %}{{ '\n' }}{% else %}{{ '[|endofturn|]\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}"""

TEMPLATES["jamba"] = r"""{# Variables #}
{% set ns = namespace(message_count=0, is_last_checked_defined=False) %}
{##}
{% set bom_str = bom_str or "<|bom|>" %}
{% set eom_str = eom_str or "<|eom|>" %}
{% set default_system_message = "" %}
{##}
{% for message in messages %}
    {% set ns.message_count = loop.index %}
    {% set role = message.role if message.role is defined else "user" %}
    {# Call the parts #}
    {%- filter trim %}
    {{ bom_str }}<|{{ role }}|> {{ message.content }}{{ eom_str }}
    {%- endfilter %}
    {% if ns.message_count == messages | length -%}
        {{ "\n" }}
    {%- endif %}
{% endfor %}
{% if add_generation_prompt %}
{{ bom_str }}<|assistant|>
{%- endif -%}"""

TEMPLATES["nemotron_reasoning"] = r"""{{- bos_token }}{%- if messages and messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}{%- else %}{%- set system_message = "" %}{%- endif %}{{- "<|h|>system<|/h|>\n\n" }}{{- system_message }}{{- "<|x|>" }}{%- for message in messages %}{%- if message['role'] == 'assistant' and '</think>' in message['content'] %}{%- set content = message['content'].split('</think>')[-1].lstrip() %}{%- else %}{%- set content = message['content'] %}{%- endif %}{{- '<|h|>' + message['role'] + '<|/h|>\n\n' + content | trim + '<|x|>' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|h|>assistant<|/h|>\n\n' }}{%- endif %}"""

TEMPLATES["gpt_oss_like"] = r"""{%- macro render_typescript_type(param_spec, required_params, is_nullable=false) -%}
    {%- if param_spec.type == "array" -%}
        {%- if param_spec['items'] -%}
            {{- render_typescript_type(param_spec['items'], required_params) + "[]" -}}
        {%- else -%}
            {{- "any[]" }}
        {%- endif -%}
        {%- if param_spec.nullable -%}{{- " | null" -}}{%- endif -%}
    {%- elif param_spec.type is defined and param_spec.type is iterable and param_spec.type is not string and param_spec.type is not mapping and param_spec.type[0] is defined -%}
        {%- if param_spec.type | length > 1 -%}{{- param_spec.type | join(" | ") }}{%- else -%}{{- param_spec.type[0] }}{%- endif -%}
    {%- elif param_spec.type == "string" -%}
        {%- if param_spec.enum -%}
            {{- '"' + param_spec.enum|join('" | "') + '"' -}}
        {%- else -%}
            {{- "string" }}
        {%- endif -%}
    {%- elif param_spec.type in ("number", "integer") -%}
        {{- "number" }}
    {%- else -%}
        {{- param_spec.type | default("any") }}
    {%- endif -%}
{%- endmacro -%}
{%- macro render_tools(tools) -%}
    {%- for tool in tools %}
        {%- set tool = tool.function %}
        {{- "// " + tool.description + "\n" }}
        {{- "type " + tool.name + " = (_: {\n" }}
        {%- for name, spec in tool.parameters.properties.items() %}
            {{- name }}{{- "" if name in (tool.parameters.required or []) else "?" }}{{- ": " }}
            {{- render_typescript_type(spec, tool.parameters.required or []) }}
            {{- ",\n" if not loop.last else "\n" }}
        {%- endfor %}
        {{- "}) => any;\n\n" }}
    {%- endfor %}
{%- endmacro -%}
{{- "<|start|>system<|message|>Date: " + strftime_now("%Y-%m-%d") + "\n\n" }}{% if reasoning_effort is not defined %}{% set reasoning_effort = "medium" %}{% endif %}{{ "Reasoning: " + reasoning_effort + "<|end|>" }}
{%- if tools -%}{{ "<|start|>developer<|message|>" + render_tools(tools) + "<|end|>" }}{%- endif -%}
{%- set last_tool_call = namespace(name=none) %}
{%- for message in messages -%}
    {%- if message.role == 'assistant' -%}
        {%- if "tool_calls" in message %}
            {%- set tool_call = message.tool_calls[0] %}
            {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- "<|start|>assistant to=functions." + tool_call.name + "<|message|>" + tool_call.arguments|tojson + "<|call|>" }}
            {%- set last_tool_call.name = tool_call.name %}
        {%- elif loop.last and not add_generation_prompt %}
            {{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|return|>" }}
            {%- set last_tool_call.name = none %}
        {%- else %}
            {{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|end|>" }}
            {%- set last_tool_call.name = none %}
        {%- endif %}
    {%- elif message.role == 'tool' -%}
        {%- if last_tool_call.name is none %}
            {{- raise_exception("A result without a call!") }}
        {%- endif %}
        {{- "<|start|>functions." + last_tool_call.name + " to=assistant<|message|>" + message.content|tojson + "<|end|>" }}
    {%- else -%}
        {{- "<|start|>" ~ message.role ~ "<|message|>" ~ message.content ~ "<|end|>" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|start|>assistant
{%- endif -%}"""

TEMPLATES["call_blocks"] = r"""{%- macro turn(role, open='<|', close='|>') -%}
{{ open ~ role ~ close }}
{{ caller(role | upper) | indent(2) }}
{%- if varargs %} ({{ varargs | join(',') }}){% endif %}{% if kwargs %} {{ kwargs }}{% endif %}
<|/{{ role }}|>
{% endmacro -%}
{% for m in messages %}{% call(shout) turn(m.role, '<<', note=loop.index) -%}
{{ shout }}: {{ m.content }}
{%- endcall %}{% endfor %}"""

TEMPLATES["set_blocks"] = r"""{% set head %}
{{ bos_token }}{% for m in messages if m.role == 'system' %}{{ m.content }}
{% endfor %}
{%- endset %}
{% set quoted | trim | replace('\n', '\\n') %}
{{ head }}
{% endset %}
{{ quoted }}|{{ head | length }}
{%- for m in messages if m.role != 'system' %}
{% set body %}{{ m.role }}: {{ m.content }}{% endset %}

{{ loop.index }}/{{ loop.length }} {{ body }}
{%- else %}
nobody
{%- endfor %}"""

TEMPLATES["loop_controls"] = r"""{%- set ns = namespace(seen=0, text='') -%}
{%- for m in messages -%}
{%- if m.role == 'tool' -%}{%- continue -%}{%- endif -%}
{%- if ns.seen >= 4 -%}{%- break -%}{%- endif -%}
{%- set ns.seen = ns.seen + 1 -%}
{%- set ns.text = ns.text ~ loop.cycle('a', 'b', 'c') ~ (' first' if loop.first) ~ (' last' if loop.last) ~ loop.revindex ~ loop.changed(m.role) -%}
[{{ m.role[:3] }}:{{ m.content[-4:] }}:{{ loop.depth }}]
{%- else -%}
empty
{%- endfor -%}
{{ ns.text }}"""

TEMPLATES["slices"] = r"""{% for m in messages %}{{ m.content[1:] }}|{{ m.content[:-1] }}|{{ m.content[::-1] }}|{{ m.content[::2] }}|{{ m.content[2:5] }}|{{ (m.content | list)[-2:] }}|{{ m.content[100:] }}|{{ m.content[:2] * 2 }}
{% endfor %}{{ messages[1:3] | map(attribute='role') | list }} {{ messages[::-2] | map(attribute='role') | join }} {{ (messages[:1] + messages[-1:]) | length }}"""

TEMPLATES["string_methods"] = r"""{% for m in messages %}{% set c = m.content %}
{{ c.strip() }}|{{ c.lstrip('<W ') }}|{{ c.rstrip('.\n') }}|{{ c.upper() }}|{{ c.lower() }}|{{ c.title() }}|{{ c.capitalize() }}|{{ c.split() }}|{{ c.split('\n', 1) }}|{{ c.rsplit(' ', 1)[-1] }}|{{ c.partition('>') }}|{{ c.find('a') }},{{ c.rfind('a') }},{{ c.count('a') }}|{{ c.replace(' ', '_') }}|{{ c.startswith('<think>') }}|{{ c.endswith(('.', '\n')) }}|{{ '-'.join(c.split()) }}|{{ c.splitlines() }}|{{ c.isdigit() }}|{{ c.removeprefix(' ') }}|{{ c.removesuffix('.') }}|{{ c.center(9, '*') }}|{{ c.swapcase() }}
{% endfor %}"""

TEMPLATES["split_limits"] = r"""{% for c in ['  x  y ', ' a b c ', ' a  b c ', '\t\n', '', 'a', ' \u2003\u00e4\u2003 b\u2003'] + messages | map(attribute='content') | select('string') | list %}{% for n in [-1, 0, 1, 2, 9] %}{{ c.split(none, n) }}{{ c.rsplit(none, n) }}{{ c.split(' ', n) }}{{ c.rsplit(' ', n) }}{{ c.split('  ', n) }}
{% endfor %}{% endfor %}"""

TEMPLATES["filters"] = r"""{{ messages | map(attribute='role') | unique | list }} {{ messages | groupby('role') | map(attribute='grouper') | join(',') }}
{% for role, group in messages | groupby('role') %}{{ role }}={{ group | length }} {% endfor %}
{{ messages | map(attribute='content') | map('trim') | map('length') | sum }} {{ messages | map(attribute='content') | map('length') | max }}
{{ messages | sort(attribute='role') | map(attribute='role') | list }} {{ messages | selectattr('tool_calls', 'defined') | list | length }}
{{ messages | rejectattr('role', 'in', ['user', 'assistant']) | map(attribute='role') | list }} {{ messages | batch(2) | map('length') | list }}
{{ 'a b c' | title | replace(' ', '') | indent(3, true) }} {{ [3, 1, 2] | sort(reverse=true) }} {{ {'b': 1, 'a': 2} | dictsort }} {{ 3.14159 | round(2) }} {{ '7' | int + 1 }} {{ 'x' | int(5) }} {{ [1, none, 2] | select | list }}
{{ missing | default('d') }} {{ '' | default('e', true) }} {{ missing is defined }} {{ (missing.x is defined) if missing }} {{ 'a,b' | wordcount }} {{ messages | last | default({}) | tojson }}"""

TEMPLATES["json"] = r"""{{ messages | tojson }}
{{ messages | tojson(indent=2) }}
{{ tools | tojson(sort_keys=true) }} {{ {'é': 'ü\n"', 'n': [1, 2.0, 1e100, true, none, []], 'd': {}} | tojson(ensure_ascii=true) }}
{{ {'a': [1, {'b': 2}]} | tojson(indent=4, separators=(',', ' : ')) }} {{ 'x' | tojson ~ 1 | tojson }}"""

TEMPLATES["printing"] = r"""{{ messages }}
{{ [1, 2.5, 'it\'s', "say \"x\"", none, true, (1,), {}] }} {{ {'k': [1], 2: 'two'} }} {{ 1e16 }} {{ 1e15 }} {{ 0.1 + 0.2 }} {{ 1 / 3 }} {{ 10 / 5 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 1e-5 }} {{ 100.0 }} {{ range(3) }} {{ range(1, 7, 2) | list }} {{ 'é\t\u200b' | list }}
{{ namespace(a=1, b='x') }} {{ {'a': 1}.items() }} {{ {'a': 1}.keys() }} {{ {'a': 1}.values() }} {{ none }} {{ true and 'x' or 'y' }} {{ 1 < 2 < 3 }} {{ not 0 }} {{ 'a' in 'abc' }} {{ 3 not in [1, 2] }}"""

TEMPLATES["whitespace"] = "  {% if true %}  \n  a\n  {%- if true -%}  \n b \n {%+ if true +%} \n c {# comment #}\n  {# comment -#}  \n d\n {%- endif %}\n {% endif %} \n\n  {% endif %}\n{% raw %}\n {{ raw }} {% x %}\n{% endraw %}\n{%- raw -%}  y  {%- endraw +%}\n  {{ 'e' }}  \n  {{- 'f' -}}  \n  {% for m in messages %}\n    {{ m.role }}\n  {% endfor %}\nend\n\n"

TEMPLATES["scopes"] = r"""{% set x = 'outer' %}{% set ns = namespace(x='outer') %}{% for m in messages %}{{ x }}{% set x = m.role %}{{ x }}{% set ns.x = m.role %} {% endfor %}{{ x }} {{ ns.x }}
{% if true %}{% set y = 1 %}{% endif %}{{ y }} {% macro f(a, b=a ~ '!', c=none) %}{{ a }}{{ b }}{{ c }}{{ x }}{{ z }}{% endmacro %}{% set z = 'late' %}{{ f('1') }} {{ f('1', c=2) }} {{ f(b=3, a=4) }} {{ f() }}
{% with x = 'inner', w = x %}{{ x }}{{ w }}{% endwith %}{{ x }}{% for i in range(2) %}{% for j in range(2) %}{{ loop.index }}{{ i }}{{ j }} {% endfor %}{{ loop.index }} {% endfor %}
{% macro g() %}{% set x = 'macro' %}{{ x }}{% endmacro %}{{ g() }}{{ x }} {{ loop is defined }} {% for a, (b, c) in [(1, (2, 3)), [4, 'xy']] %}{{ a }}{{ b }}{{ c }}{% endfor %}"""

TEMPLATES["generation_nested"] = r"""{% macro say(m) %}{% generation %}{{ m.content }}{% endgeneration %}!{% endmacro %}{{ bos_token }}{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{% generation %}{{ m.content[:1] }}{% endgeneration %}{{ m.content[1:] }}</s>{% endgeneration %}{% elif m.role == 'tool' %}{{ say(m) }}{% else %}{{ m.content }}{% endif %}{% endfor %}"""

TEMPLATES["undefined"] = r"""[{{ missing }}][{{ missing | default('d') }}][{{ missing or 'o' }}][{% if missing %}t{% else %}f{% endif %}][{% for x in missing %}x{% else %}none{% endfor %}][{{ messages[99] }}][{{ messages[99] is undefined }}][{{ bos_token.nothing }}][{{ missing | length }}][{{ missing == other }}][{{ missing is none }}][{{ 'x' ~ missing ~ 'y' }}][{{ [missing] }}][{{ missing | list }}][{{ 'a' if false }}]{% if explode %}{{ missing.attribute }}{% endif %}"""

TEMPLATES["tool_documents"] = r"""{%- set tool_definitions -%}
{%- for tool in (tools if tools else []) -%}
- {{ tool.function.name }}: {{ tool.function.description | default('no description', true) | truncate(30) }}
{% for name, p in tool.function.parameters.properties.items() | list -%}
{{ '  * %-8s %s' | format(name, p.type) }}{{ ' (required)' if name in tool.function.parameters.required | default([]) }}
{% endfor -%}
{%- endfor -%}
{%- endset -%}
{%- if tool_definitions | trim -%}{{ tool_definitions }}{%- else -%}no tools
{% endif -%}
{%- for d in documents | default([], true) -%}
[{{ '%02d' % loop.index }}] {{ d.title | upper }} {{ d.text | wordcount }}
{% endfor -%}
{{ '{} messages, {:.1f}%'.format(messages | length, 12.345) }}"""
